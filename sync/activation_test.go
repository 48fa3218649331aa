package sync_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"campaign-credsync/internal/credential"
	credsync "campaign-credsync/sync"
)

// A step that failed and then has to wait has failed all the same: the state says so until it succeeds, and in the end it is an error.
func TestStepThatFailedAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "prod")
		w.active.fail(errors.New("exit status 3"))
		w.source.rotate("one")
		w.start()
		defer func() { w.stop() }()
		wantFailed := func() {
			t.Helper()
			w.settle()
			if is := w.only(); is.State != credsync.StateActivationPending || is.Reason != credential.ReasonActivationFailed || is.LastError != "exit status 3" {
				t.Fatalf("%s, %s: %s\n%s", is.State, is.Reason, is.LastError, w.log)
			}
		}
		wantFailed()
		w.active.fail(credential.Because(credential.ReasonActivationWaits, laterError{time.Now().Add(30 * time.Minute)}))
		time.Sleep(29 * time.Minute)
		wantFailed()
		w.active.fail(errors.New("exit status 3"))
		time.Sleep(2 * time.Minute)
		wantFailed()
		if warnings, errs := w.told(`level=WARN msg="credential not activated"`), w.told(`level=ERROR msg="credential not activated"`); warnings != 1 || errs != 1 {
			t.Errorf("%d warnings and %d errors\n%s", warnings, errs, w.log)
		}
		w.active.fail(nil)
		time.Sleep(2 * time.Minute)
		w.wantState("prod", credsync.StateInSync)
	})
}
