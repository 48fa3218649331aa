package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"

	"campaign-credsync/test/vaulttest"
)

// What DEMO_VAULT may say.
const (
	automatic = ""      // builds one only where somebody sees it
	build     = "build" // builds one where there is none
	skip      = "skip"  // leaves part 2 out
)

func check(choice string) error {
	switch choice {
	case automatic, build, skip:
		return nil
	}
	return fmt.Errorf("DEMO_VAULT=%q: set it to %s or %s, or leave it out", choice, build, skip)
}

// mayBuild: minutes of silence are for nobody who did not ask.
func mayBuild(choice string, terminal bool) bool {
	return choice == build || choice == automatic && terminal
}

// findVault returns the Vault of part 2, which the caller must Close; nil where that part is left out, and out says why. It is never the
// one of VAULT_ADDR, which may hold real secrets.
func findVault(ctx context.Context, out io.Writer, choice string, terminal bool) (*vaulttest.Server, error) {
	if choice == skip {
		fmt.Fprintf(out, "\nPart 2 needs a Vault, and is left out: DEMO_VAULT=%s.\n", skip)
		return nil, nil
	}
	if s := startInstalled(ctx, out); s != nil {
		return s, nil
	}
	built := vaulttest.Built()
	switch {
	case built:
		fmt.Fprintln(out, "\nPart 2 starts the Vault that was built before.")
	case mayBuild(choice, terminal):
		fmt.Fprintln(out, "\nPart 2 needs a Vault. PATH has no vault or bao that can be used, so a real one is built, once. ^C leaves this part out.")
	default:
		fmt.Fprintf(out, "\nPart 2 needs a Vault, and is left out: PATH has no vault or bao that can be used, and without a terminal one is built only when asked:\n"+
			"  make demo DEMO_VAULT=%s        (about five minutes on two cores, once)\n", build)
		return nil, nil
	}
	var s *vaulttest.Server
	interrupted := false
	err := interruptible(ctx, func(one context.Context) (err error) {
		s, err = vaulttest.LaunchBuilt(one, out)
		interrupted = one.Err() != nil && ctx.Err() == nil
		return err
	})
	if err != nil && !built && interrupted {
		fmt.Fprintln(out, "\nThe build was interrupted, and part 2 is left out. The next build goes on from here.")
		return nil, nil
	}
	return s, err
}

// startInstalled starts vault or bao, or returns nil.
func startInstalled(ctx context.Context, out io.Writer) (s *vaulttest.Server) {
	for _, name := range []string{"vault", "bao"} {
		program, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		err = interruptible(ctx, func(ctx context.Context) (err error) {
			s, err = vaulttest.LaunchDev(ctx, program)
			return err
		})
		if err == nil {
			fmt.Fprintf(out, "\nPart 2 starts a development server of its own: %s server -dev\n", program)
			return s
		}
		fmt.Fprintf(out, "\n%s cannot be used: %v\n", program, err)
	}
	return nil
}
