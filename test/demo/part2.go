package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/vaulttest"
)

// tellVault is part 2: the credential is in a Vault.
func tellVault(ctx context.Context, dir string, programs container.Programs, vault *vaulttest.Server, out io.Writer) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	c, err := container.New(ctx, dir, container.Options{Instances: []string{instance}, Settings: settings, Programs: programs, Vault: vault})
	if err != nil {
		return err
	}
	defer c.Close()
	s := &stage{c, out}
	_, secret, err := c.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	began := time.Now()
	return s.play(ctx, "Part 2, a real Vault. The daemon starts, and Vault holds version 1",
		func(ctx context.Context) error {
			if err := s.applied(ctx, 1, secret); err != nil {
				return err
			}
			s.measured("from start to applied and activated", began)
			return nil
		},
		s.rotation, s.vaultGone, s.vaultBack, s.status)
}

func (s *stage) rotation(ctx context.Context) error {
	s.title("Rotation: version 2 is written to Vault (polled every second here, every 30 s by default)")
	version, secret, err := s.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.applied(ctx, version, secret); err != nil {
		return err
	}
	s.measured("from Vault to applied and activated", began)
	return nil
}

func (s *stage) vaultGone(ctx context.Context) error {
	s.title("Vault gone: connections are refused; a hand edit meanwhile")
	s.Proxy.Down()
	if _, err := s.Await(ctx, func(now container.Status) bool { return now.Is("degraded") }); err != nil {
		return err
	}
	return s.drift(ctx, func(document []byte) []byte { return document })
}

func (s *stage) vaultBack(ctx context.Context) error {
	s.title("Vault back, with version 3 (retries spread over up to a minute; SIGUSR1 or sync asks at once)")
	version, secret, err := s.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	if err := s.Proxy.Up(); err != nil {
		return err
	}
	began := time.Now()
	stdout, stderr, status := s.Command(ctx, "sync")
	fmt.Fprintf(s.out, "  $ campaign-credsync sync\n  %s", stdout)
	if status != 0 {
		return fmt.Errorf("sync ended with status %d: %s", status, stderr)
	}
	if err := s.applied(ctx, version, secret); err != nil {
		return err
	}
	s.measured("from asking to applied and activated", began)
	return nil
}
