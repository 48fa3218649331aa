package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	credsync "campaign-credsync/sync"
	"campaign-credsync/test/container"
	"campaign-credsync/test/fleet"
	"campaign-credsync/test/vaulttest"
)

const (
	phaseStart    = "start-up"
	phaseSettle   = "settling"
	phaseSteady   = "steady"
	phaseSealed   = "sealed"
	phaseBack     = "back"
	phaseRotation = "rotation"
)

// bench is a Vault, the daemons, and the moments at which the phases began.
type bench struct {
	options
	dir      string
	vault    *vaulttest.Server
	recorder *recorder
	crowd    *crowd
	roles    []role
	hosts    []*fleet.Host

	began    []moment
	rotated  time.Time
	unsealed time.Time // before that, Vault was asked to unseal
}

type role struct{ id, secretID string }

type moment struct {
	phase string
	at    time.Time
}

const secretPath = "campaign/prod/oauth"

// prepare starts Vault and gives each daemon a role, nothing of which is measured.
func prepare(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o, crowd: newCrowd(o.daemons), roles: make([]role, o.daemons)}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.end())
		}
	}()
	memory := "/dev/shm" // so that a thousand state directories cost no disk
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	if b.dir, err = os.MkdirTemp(memory, "credsync-fleet-"); err != nil {
		return b, err
	}
	if b.vault, err = vaulttest.Launch(ctx, os.Stderr); err != nil {
		return b, err
	}
	if b.recorder, err = newRecorder(b.vault.Address); err != nil {
		return b, err
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range b.roles {
		group.Go(func() (err error) {
			r := &b.roles[i]
			r.id, r.secretID, err = b.vault.Role(limited, b.vault.ReadPolicy(secretPath), o.ttl)
			return err
		})
	}
	if err = group.Wait(); err != nil {
		return b, fmt.Errorf("make the roles: %w", err)
	}
	return b, b.rotate(ctx)
}

func (b *bench) rotate(ctx context.Context) error {
	_, err := b.vault.Write(ctx, secretPath, container.Credential("p8e-"+(rand.Text() + rand.Text())[:32]))
	return err
}

func (b *bench) begin(phase string) { b.began = append(b.began, moment{phase, time.Now()}) }

// bounds returns when a phase that is over began and ended.
func (b *bench) bounds(phase string) (from, to time.Time) {
	for i, m := range b.began {
		if m.phase == phase {
			return m.at, b.began[i+1].at
		}
	}
	return
}

// start starts all daemons at once.
func (b *bench) start(ctx context.Context) error {
	for i, r := range b.roles {
		dir := filepath.Join(b.dir, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		host, err := fleet.Start(fleet.Config{
			Dir: dir, Address: b.recorder.address, AuthMount: b.vault.AuthMount, RoleID: r.id, SecretID: r.secretID,
			Mount: b.vault.Mount, Path: secretPath, Poll: b.poll,
			OnStatus: func(s []credsync.InstanceStatus) { b.crowd.status(i, s) },
			Logger:   slog.New(listener{b.crowd, i}),
		})
		if err != nil {
			return err
		}
		b.hosts = append(b.hosts, host)
	}
	return b.crowd.await(ctx, func(h told) bool { return h.inSync })
}

// settle lets the daemons spread, which they do within one interval.
func (b *bench) settle(ctx context.Context) error { return wait(ctx, 2*b.poll) }

func (b *bench) idle(ctx context.Context) error { return wait(ctx, b.steady) }

func (b *bench) outage(ctx context.Context) error {
	if err := b.vault.Seal(ctx); err != nil {
		return err
	}
	return wait(ctx, b.sealed)
}

func (b *bench) comeBack(ctx context.Context) error {
	b.unsealed = time.Now()
	if err := b.vault.Unseal(ctx); err != nil {
		return err
	}
	if err := b.crowd.await(ctx, func(h told) bool { return h.inSync }); err != nil {
		return err
	}
	return wait(ctx, time.Until(b.unsealed.Add(b.back)))
}

func (b *bench) rotation(ctx context.Context) error {
	b.rotated = time.Now()
	if err := b.rotate(ctx); err != nil {
		return err
	}
	return b.crowd.await(ctx, func(h told) bool { return !h.applied[2].IsZero() })
}

// end stops the daemons and Vault.
func (b *bench) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := make([]error, len(b.hosts))
	var all sync.WaitGroup
	for i, h := range b.hosts {
		all.Go(func() { errs[i] = h.Stop(ctx) })
	}
	all.Wait()
	if b.recorder != nil {
		b.recorder.close()
	}
	if b.vault != nil {
		errs = append(errs, b.vault.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}
