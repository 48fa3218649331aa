package metrics

import (
	"time"

	dto "github.com/prometheus/client_model/go"

	"campaign-credsync/internal/control"
	"campaign-credsync/sync"
)

// families are the metrics that the status tells. They are made here and not by collectors, which take ten times as long where there are
// a thousand instances.
func families(s control.Status) []*dto.MetricFamily {
	b := builder{}
	state := b.gauge("instance_state", "Whether an instance is in a state: 0 or 1 for each.")
	info := b.gauge("instance_info", "Why an instance is not in sync: the reason code. Always 1.")
	wanted := b.gauge("wanted_version", "The newest version of the secret that the source answered with, also one that is refused.")
	applied := b.gauge("applied_version", "The version that the instance's file holds.")
	activated := b.gauge("activated_version", "The version that the processes were told of.")
	appliedAt := b.gauge("applied_timestamp_seconds", "When a credential was applied last.")
	activatedAt := b.gauge("activated_timestamp_seconds", "When the activation of a credential was finished last.")
	checkedAt := b.gauge("checked_timestamp_seconds", "When the instance's file was looked at last.")
	pausedUntil := b.gauge("paused_until_timestamp_seconds", "Until when the instance is paused; not there unless it is.")
	detected := b.counter("drift_detected_total", "Times that drift was found.")
	reverted := b.counter("drift_reverted_total", "Times that drift was reverted.")
	brake := b.gauge("drift_brake_active", "Whether drift is not reverted for now, as there were too many reverts in an hour.")
	for _, in := range s.Instances {
		instance := label("instance", in.Name)
		for i := range sync.States {
			state.add(number(in.State == sync.States[i]), instance, stateLabels[i])
		}
		info.add(1, instance, label("reason", string(in.Reason)))
		wanted.add(float64(in.WantedVersion), instance)
		applied.add(float64(in.AppliedVersion), instance)
		activated.add(float64(in.ActivatedVersion), instance)
		appliedAt.addTime(in.AppliedAt.Time, instance)
		activatedAt.addTime(in.ActivatedAt.Time, instance)
		checkedAt.addTime(in.LastCheck.Time, instance)
		pausedUntil.addTime(in.PausedUntil.Time, instance)
		detected.add(float64(in.DetectedTotal), instance)
		reverted.add(float64(in.RevertedTotal), instance)
		brake.add(number(in.Braked), instance)
	}
	if s.Vault.Used {
		b.gauge("vault_poll_success_timestamp_seconds", "When Vault answered a poll last.").addTime(s.Vault.LastPoll.Time)
		b.gauge("vault_token_expiry_timestamp_seconds", "When the token of Vault ends.").addTime(s.Vault.TokenExpires.Time)
		b.gauge("vault_secret_id_expiry_timestamp_seconds", "When the secret-id ends, where that is known.").addTime(s.Vault.SecretIDExpires.Time)
	}
	b.gauge("config_last_reload_successful", "Whether the last reload of the configuration was successful.").add(number(s.Daemon.ReloadError == ""))
	b.gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded, at the start or by a reload.").addTime(s.Daemon.ConfigLoadedAt.Time)
	warning := b.gauge("warning", "Whether something needs a person that concerns no one instance: 0 or 1 for each code.")
	for _, code := range control.WarningCodes {
		warning.add(number(s.Warns(code)), label("code", string(code)))
	}
	return b.families()
}

// stateLabels are those of sync.States.
var stateLabels = func() (labels []*dto.LabelPair) {
	for _, state := range sync.States {
		labels = append(labels, label("state", string(state)))
	}
	return labels
}()

// builder makes families, of which those without a metric are left out.
type builder struct {
	all  []*family
	free []sample
}

type family struct {
	dto.MetricFamily
	builder *builder
}

// sample is one metric with all that it points to: to make each of them by itself takes three times as long.
type sample struct {
	metric dto.Metric
	gauge  dto.Gauge
	value  float64
	labels [2]*dto.LabelPair
}

// samplesAtOnce are made together.
const samplesAtOnce = 128

func (b *builder) gauge(name, help string) *family { return b.family(name, help, dto.MetricType_GAUGE) }

func (b *builder) counter(name, help string) *family {
	return b.family(name, help, dto.MetricType_COUNTER)
}

func (b *builder) family(name, help string, kind dto.MetricType) *family {
	name = namespace + "_" + name
	f := &family{dto.MetricFamily{Name: &name, Help: &help, Type: &kind}, b}
	b.all = append(b.all, f)
	return f
}

func (b *builder) families() (families []*dto.MetricFamily) {
	for _, f := range b.all {
		if len(f.Metric) > 0 {
			families = append(families, &f.MetricFamily)
		}
	}
	return families
}

func (f *family) add(value float64, labels ...*dto.LabelPair) {
	b := f.builder
	if len(b.free) == 0 {
		b.free = make([]sample, samplesAtOnce)
	}
	s := &b.free[0]
	b.free = b.free[1:]
	s.value = value
	s.metric.Label = append(s.labels[:0], labels...)
	if f.GetType() == dto.MetricType_COUNTER {
		s.metric.Counter = &dto.Counter{Value: &s.value}
	} else {
		s.gauge.Value = &s.value
		s.metric.Gauge = &s.gauge
	}
	f.Metric = append(f.Metric, &s.metric)
}

// addTime adds a time, and nothing for one that never was.
func (f *family) addTime(at time.Time, labels ...*dto.LabelPair) {
	if !at.IsZero() {
		f.add(float64(at.UnixMilli())/1000, labels...)
	}
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func number(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}
