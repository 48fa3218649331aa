package control

import (
	"fmt"
	"time"

	"campaign-credsync/internal/credential"
)

// remedies tell what to do, for each reason why an instance is not in sync.
var remedies = map[credential.Reason]string{
	credential.ReasonPaused:             "An operator paused it. To go on sooner: campaign-credsync resume.",
	credential.ReasonFileMissing:        "Put the instance's configuration file back from a backup; it is never created here.",
	credential.ReasonFileDamaged:        "Repair the instance's configuration file or put it back from a backup; nothing is written until it can be parsed.",
	credential.ReasonFileBusy:           "Another program has the file open for writing. Find it with: sudo fuser -v FILE.",
	credential.ReasonFileUnreadable:     "The file or its directory may not be used; see the error. For missing rights: let the daemon's user own the file (chown) and write the directory.",
	credential.ReasonDriftAlert:         "drift.revert is alert: somebody changed the credential, and it is only reported. To keep the change: campaign-credsync adopt. To revert it: set drift.revert to splice, then systemctl reload campaign-credsync.",
	credential.ReasonDriftBrake:         "Another program keeps changing the credential. Find it in: campaign-credsync history. Reverts go on after the hour, or after systemctl reload campaign-credsync.",
	credential.ReasonDriftStuck:         "The change could not be reverted; see the error, and why the file cannot be replaced: journalctl -u campaign-credsync -g splice. To keep the change: campaign-credsync adopt.",
	credential.ReasonSecretMissing:      "There is no secret at the path. Write it, or correct mount and path, or file, of the instance.",
	credential.ReasonSecretDeleted:      "The newest version of the secret was deleted or destroyed. Write a new one, or undelete it.",
	credential.ReasonSecretMalformed:    "The secret lacks a field or has one of the wrong shape; see the error. Write a corrected version.",
	credential.ReasonSecretRollback:     "The secret's version goes back. Is a node of the cluster behind? If the rollback is meant, set allow_rollback for the instance.",
	credential.ReasonIMSRefused:         "Adobe refuses the secret; see the error. A new version is not applied. Write a valid secret to Vault. To ask Adobe again: campaign-credsync sync.",
	credential.ReasonProbeWaits:         "Adobe is being asked whether it accepts the new version. Without an answer it is applied after ims.patience, and not proven.",
	credential.ReasonFirstApply:         "Somebody else set the credential that is on disk. To have the source's applied: campaign-credsync sync. To keep what is on disk: campaign-credsync adopt.",
	credential.ReasonApplyFailed:        "nlserver did not write the credential; see the error. It is tried again; at once with: campaign-credsync sync.",
	credential.ReasonApplyWaits:         "The apply waits for its turn. If that lasts: campaign-credsync doctor.",
	credential.ReasonNotChecked:         "It is being checked for the first time. If that lasts: campaign-credsync doctor.",
	credential.ReasonWindow:             "Activation waits for schedule.activate. To have it now: empty that key, then systemctl reload campaign-credsync.",
	credential.ReasonActivationFailed:   "The processes could not be told of the credential; see the error. It is tried again; at once with: campaign-credsync sync, or, after three failures, systemctl reload campaign-credsync.",
	credential.ReasonActivationUnproven: "A module was restarted and does not run again, or runs on as before; see the error. See whether it runs in Campaign, and start it by hand. It is looked at again, and never restarted for that.",
	credential.ReasonActivationWaits:    "Activation waits for its turn, or for another instance's apply. If that lasts: campaign-credsync status.",
	credential.ReasonVaultUnreachable:   "Vault does not answer, or not as it should; see the error. The applied credential stays. See whether Vault runs, and address, network and certificate are right.",
	credential.ReasonVaultSealed:        "Unseal Vault. The applied credential stays.",
	credential.ReasonVaultDenied:        "The policy does not allow to read the secret; see the error for the path and the capability.",
	credential.ReasonLoginRefused:       "Vault refuses the login, or what it needs is not there; see the error. Put a new secret-id (or what the method needs) into its file; with LoadCredential, into /etc/campaign-credsync/secret_id, then systemctl restart campaign-credsync.",
	credential.ReasonLoginLocked:        "Vault has locked the role after refused logins, or does not let this host log in there. A lock ends by itself; find in Vault's audit log which host has an old secret-id.",
	credential.ReasonSourceUnreadable:   "The file of the credential cannot be read; see the error. Let the daemon's user read it, or correct file of the instance.",
	credential.ReasonRecovering:         "What an earlier run left is being finished; see the error. An nlserver that hangs has to be ended.",
	credential.ReasonStuck:              "A step does not end. See whether the disk or mount answers: campaign-credsync doctor.",
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
