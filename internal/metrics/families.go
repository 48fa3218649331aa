package metrics

import (
	"time"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
)

// addStatus adds the metrics that the status tells.
func (e *exposition) addStatus(s control.Status) {
	e.addInstances(s.Instances)
	if v := s.Vault; v.Used {
		e.begin(gauge, "vault_poll_success_timestamp_seconds", "When Vault answered a poll last.")
		e.addTime(v.LastPoll.Time)
		e.begin(gauge, "vault_token_expiry_timestamp_seconds", "When the token of Vault ends.")
		e.addTime(v.TokenExpires.Time)
		e.begin(gauge, "vault_secret_id_expiry_timestamp_seconds", "When the secret-id ends, where that is known.")
		e.addTime(v.SecretIDExpires.Time)
	}
	e.begin(gauge, "config_last_reload_successful", "Whether the last reload of the configuration was successful.")
	e.add(number(s.Daemon.ReloadError == ""))
	e.begin(gauge, "config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded, at the start or by a reload.")
	e.addTime(s.Daemon.ConfigLoadedAt.Time)
	e.begin(gauge, "warning", "Whether something needs a person that concerns no one instance: 0 or 1 for each code.")
	for _, code := range control.WarningCodes {
		e.add(number(s.Warns(code)), labels("code", string(code)))
	}
}

func (e *exposition) addInstances(all []sync.InstanceStatus) {
	names := make([]string, len(all))
	for i, in := range all {
		names[i] = labels("instance", in.Name)
	}
	each := func(k kind, name, help string, add func(in *sync.InstanceStatus, instance string)) {
		e.begin(k, name, help)
		for i := range all {
			add(&all[i], names[i])
		}
	}
	value := func(k kind, name, help string, of func(in *sync.InstanceStatus) float64) {
		each(k, name, help, func(in *sync.InstanceStatus, instance string) { e.add(of(in), instance) })
	}
	moment := func(name, help string, of func(in *sync.InstanceStatus) time.Time) {
		each(gauge, name, help, func(in *sync.InstanceStatus, instance string) { e.addTime(of(in), instance) })
	}

	states := make([]string, len(sync.States))
	for i, state := range sync.States {
		states[i] = labels("state", string(state))
	}
	each(gauge, "instance_state", "Whether an instance is in a state: 0 or 1 for each.", func(in *sync.InstanceStatus, instance string) {
		for i, state := range sync.States {
			e.add(number(in.State == state), instance, states[i])
		}
	})
	each(gauge, "instance_info", "Why an instance is not in sync: the reason code. Always 1.", func(in *sync.InstanceStatus, instance string) {
		e.add(1, instance, labels("reason", string(in.Reason)))
	})
	value(gauge, "wanted_version", "The newest version of the secret that the source answered with, also one that is refused.",
		func(in *sync.InstanceStatus) float64 { return float64(in.WantedVersion) })
	value(gauge, "applied_version", "The version that the instance's file holds.",
		func(in *sync.InstanceStatus) float64 { return float64(in.AppliedVersion) })
	value(gauge, "activated_version", "The version that the processes were told of.",
		func(in *sync.InstanceStatus) float64 { return float64(in.ActivatedVersion) })
	moment("applied_timestamp_seconds", "When a credential was applied last.",
		func(in *sync.InstanceStatus) time.Time { return in.AppliedAt.Time })
	moment("activated_timestamp_seconds", "When the activation of a credential was finished last.",
		func(in *sync.InstanceStatus) time.Time { return in.ActivatedAt.Time })
	moment("checked_timestamp_seconds", "When the instance's file was looked at last.",
		func(in *sync.InstanceStatus) time.Time { return in.LastCheck.Time })
	moment("paused_until_timestamp_seconds", "Until when the instance is paused; not there unless it is.",
		func(in *sync.InstanceStatus) time.Time { return in.PausedUntil.Time })
	value(counter, "drift_detected_total", "Times that drift was found.",
		func(in *sync.InstanceStatus) float64 { return float64(in.DetectedTotal) })
	value(counter, "drift_reverted_total", "Times that drift was reverted.",
		func(in *sync.InstanceStatus) float64 { return float64(in.RevertedTotal) })
	value(gauge, "drift_brake_active", "Whether drift is not reverted for now, as there were too many reverts in an hour.",
		func(in *sync.InstanceStatus) float64 { return number(in.Braked) })
}

func number(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}
