package credential

import "errors"

// Reason says in one word why an instance is not in sync. Reasons are public and stable.
type Reason string

// The reasons. Those of a source come with its errors and refusals (see [Because] and [Refusal]).
const (
	ReasonPaused           Reason = "paused"
	ReasonFileMissing      Reason = "file_missing"
	ReasonFileDamaged      Reason = "file_damaged"
	ReasonFileBusy         Reason = "file_busy"
	ReasonFileUnreadable   Reason = "file_unreadable"
	ReasonDriftAlert       Reason = "drift_alert"
	ReasonDriftBrake       Reason = "drift_brake"
	ReasonDriftStuck       Reason = "drift_stuck"
	ReasonSecretMissing    Reason = "secret_missing"
	ReasonSecretDeleted    Reason = "secret_deleted"
	ReasonSecretMalformed  Reason = "secret_malformed"
	ReasonSecretRollback   Reason = "secret_rollback"
	ReasonIMSRefused       Reason = "ims_refused"
	ReasonProbeWaits       Reason = "probe_waits"
	ReasonFirstApply       Reason = "first_apply"
	ReasonApplyFailed      Reason = "apply_failed"
	ReasonApplyWaits       Reason = "apply_waits"
	ReasonNotChecked       Reason = "not_checked"
	ReasonWindow           Reason = "window"
	ReasonActivationFailed Reason = "activation_failed"
	ReasonActivationWaits  Reason = "activation_waits"
	// ReasonActivationUnproven is for a module that was restarted and does not run again.
	ReasonActivationUnproven Reason = "activation_unproven"
	ReasonVaultUnreachable   Reason = "vault_unreachable"
	ReasonVaultSealed        Reason = "vault_sealed"
	ReasonVaultDenied        Reason = "vault_denied"
	ReasonLoginRefused       Reason = "login_refused"
	ReasonLoginLocked        Reason = "login_locked"
	ReasonSourceUnreadable   Reason = "source_unreadable"
	ReasonRecovering         Reason = "recovering"
	ReasonStuck              Reason = "stuck"
)

// because is an error with a reason.
type because struct {
	error
	reason Reason
}

func (b because) Unwrap() error { return b.error }

// Because gives an error a reason, unless it is nil or has one.
func Because(reason Reason, err error) error {
	if err == nil || ReasonOf(err) != "" {
		return err
	}
	return because{err, reason}
}

// ReasonOf returns the reason that Because gave an error, or that of a Refusal; empty where there is none.
func ReasonOf(err error) Reason {
	if b, ok := errors.AsType[because](err); ok {
		return b.reason
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Code
	}
	return ""
}
