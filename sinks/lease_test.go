package sinks

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A file that is leased to somebody, such as a file server or the daemon itself while a command looks, is waited for.
func TestLookWaitsForALease(t *testing.T) {
	c := newCampaign(t)
	holder, err := os.OpenFile(c.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	lease := func(kind int) {
		t.Helper()
		if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, kind); err != nil {
			t.Fatal(err)
		}
	}
	lease(unix.F_WRLCK)
	looked := make(chan error, 1)
	go func() {
		_, err := c.Look(t.Context())
		looked <- err
	}()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		kind, err := unix.FcntlInt(holder.Fd(), unix.F_GETLEASE, 0)
		if err != nil || time.Since(began) > time.Minute {
			t.Fatal("nobody asks for the lease", err)
		}
		if kind != unix.F_WRLCK {
			break
		}
	}
	lease(unix.F_UNLCK)
	holder.Close() // it was open for writing
	if err := <-looked; err != nil {
		t.Error(err)
	}
}
