package control

import (
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
)

// remedies tell what to do, for each reason why an instance is not in sync.
var remedies = map[credential.Reason]string{
	credential.ReasonPaused:             "An operator paused it. To go on sooner: campaign-credsync resume.",
	credential.ReasonFileMissing:        "Put the instance's file back from a backup; it is never created here.",
	credential.ReasonFileDamaged:        "Repair the instance's file, or put it back from a backup; nothing is written until it can be parsed.",
	credential.ReasonFileBusy:           "Another program has the file open for writing. Find it with: sudo fuser -v FILE.",
	credential.ReasonFileUnreadable:     "If rights are missing: let the daemon's user own the file (chown) and write the directory.",
	credential.ReasonDriftAlert:         "Drift is only reported, as drift.revert is alert. To keep the change: campaign-credsync adopt. To revert it: set drift.revert to splice, then systemctl reload campaign-credsync.",
	credential.ReasonDriftBrake:         "Another program keeps changing the credential. Find it in: campaign-credsync history. Reverts go on after the hour, or after systemctl reload campaign-credsync.",
	credential.ReasonDriftStuck:         "Why the file cannot be replaced: journalctl -u campaign-credsync -g splice. To keep the change: campaign-credsync adopt.",
	credential.ReasonSecretMissing:      "Write the secret, or correct mount and path, or file, of the instance.",
	credential.ReasonSecretDeleted:      "Write a new version, or undelete the newest.",
	credential.ReasonSecretMalformed:    "A field is missing or has the wrong shape. Write a corrected version.",
	credential.ReasonSecretRollback:     "Is a node of the cluster behind? If the rollback is meant, set allow_rollback for the instance.",
	credential.ReasonIMSRefused:         "A new version is not applied. Write a valid secret to Vault. To ask Adobe again: campaign-credsync sync.",
	credential.ReasonProbeWaits:         "Adobe is being asked about the new version. Without an answer it is applied after ims.patience, and not proven.",
	credential.ReasonFirstApply:         "Somebody else set the credential on disk. To have the source's applied: campaign-credsync sync. To keep what is on disk: campaign-credsync adopt.",
	credential.ReasonApplyFailed:        "nlserver did not write the credential. Tried again; at once with: campaign-credsync sync.",
	credential.ReasonApplyWaits:         "It waits for its turn. If that lasts: campaign-credsync doctor.",
	credential.ReasonNotChecked:         "The first check is under way. If that lasts: campaign-credsync doctor.",
	credential.ReasonWindow:             "Activation waits for schedule.activate. To have it now: empty that key, then systemctl reload campaign-credsync.",
	credential.ReasonActivationFailed:   "The processes could not be told. Tried again; at once with: campaign-credsync sync, or, after three failures, systemctl reload campaign-credsync.",
	credential.ReasonActivationUnproven: "A module does not run again, or runs on as before. See whether it runs in Campaign, and start it by hand; it is never restarted for that.",
	credential.ReasonActivationWaits:    "It waits for its turn, or for another instance's apply. If that lasts: campaign-credsync status.",
	credential.ReasonVaultUnreachable:   "The applied credential stays. Does Vault run, and are address, network and certificate right?",
	credential.ReasonVaultSealed:        "Unseal Vault. The applied credential stays.",
	credential.ReasonVaultDenied:        "The policy does not allow to read the secret: the error has path and capability.",
	credential.ReasonLoginRefused:       "Put a new secret-id (or what the method needs) into its file; with LoadCredential, into /etc/campaign-credsync/secret_id, then systemctl restart campaign-credsync.",
	credential.ReasonLoginLocked:        "Vault has locked the role after refused logins, or this host may not log in there. A lock ends by itself; find in Vault's audit log which host has an old secret-id.",
	credential.ReasonSourceUnreadable:   "Let the daemon's user read the file, or correct file of the instance.",
	credential.ReasonRecovering:         "What an earlier run left is being finished. End an nlserver that hangs.",
	credential.ReasonStuck:              "A step does not end. Does the disk or mount answer? campaign-credsync doctor.",
}

// Remedy tells what to do about a reason.
func Remedy(r credential.Reason) string { return remedies[r] }

// Age is a time as people say it: "3 min ago", or "in 2 h" for one to come, "never" for none.
func Age(away time.Duration, never bool) string {
	if never {
		return "never"
	}
	text := func(d time.Duration) string {
		switch {
		case d < 2*time.Minute:
			return fmt.Sprintf("%d s", d/time.Second)
		case d < 2*time.Hour:
			return fmt.Sprintf("%d min", d/time.Minute)
		case d < 48*time.Hour:
			return fmt.Sprintf("%d h", d/time.Hour)
		}
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	}
	if away > 0 {
		return "in " + text(away)
	}
	return text(-away) + " ago"
}
