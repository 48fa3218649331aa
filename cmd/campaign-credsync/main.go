//go:build !manual

// Command campaign-credsync keeps the OAuth Server-to-Server credential of the instances of one Adobe Campaign Classic v7
// container equal to a secret in Vault.
//
// It changes nothing but the attributes that carry the credential, and rather keeps an old credential that works than
// writes one that may not.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	// No core dump, and no look into the memory for other processes of the same user. It fails for nobody.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.LookupEnv)
	stop()
	os.Exit(code)
}
