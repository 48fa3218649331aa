package soak_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/world"
)

// fault is something that happens, and is over when do returns.
type fault struct {
	name     string
	restarts bool // the daemon
	seals    bool // Vault, which has to be our own
	do       func(*soak, *rand.Rand) error
}

// nap waits for up to most.
func (s *soak) nap(random *rand.Rand, most time.Duration) {
	select {
	case <-time.After(time.Duration(random.Int64N(int64(most)))):
	case <-s.Ctx.Done():
	}
}

// outsideFaults are those of Vault and nlserver.
var outsideFaults = slices.Concat([]fault{
	{name: "rotation", do: (*soak).rotation},
	{name: "rotation", do: (*soak).rotation},
	{name: "rotation", do: (*soak).rotation},
	{name: "the same credential again", do: func(s *soak, random *rand.Rand) (err error) {
		s.version, err = s.Vault.Write(s.Ctx, s.SecretPath(instance), container.Credential(s.secret))
		s.nap(random, 2*time.Second)
		return err
	}},
	{name: "refused secret", do: refusedSecret},
	{name: "deleted and undeleted", do: func(s *soak, random *rand.Rand) error {
		err := s.Vault.Delete(s.Ctx, s.SecretPath(instance), s.version)
		s.nap(random, 3*time.Second)
		return errors.Join(err, s.Vault.Undelete(s.Ctx, s.SecretPath(instance), s.version))
	}},
	{name: "Vault cut off", do: func(s *soak, random *rand.Rand) error {
		s.Proxy.Down()
		s.nap(random, 3*time.Second)
		return s.Proxy.Up()
	}},
	{name: "Vault hangs", do: func(s *soak, random *rand.Rand) error {
		letGo := s.Proxy.Hang()
		defer letGo()
		s.nap(random, 3*time.Second)
		return nil
	}},
	{name: "Vault's tokens revoked", do: func(s *soak, random *rand.Rand) error {
		s.Succeeds("its tokens are revoked", func() error { return s.Vault.RevokeRoleTokens(s.Ctx, s.RoleID) }) // others end meanwhile
		return nil
	}},
	{name: "Vault sealed", seals: true, do: func(s *soak, random *rand.Rand) error {
		err := s.Vault.Seal(s.Ctx)
		s.nap(random, 2*time.Second)
		return errors.Join(err, s.Vault.Unseal(s.Ctx))
	}},
	vaultAnswers(403), vaultAnswers(429), vaultAnswers(473), vaultAnswers(500), vaultAnswers(503),
}, nlserverFaults(false,
	`{"fail": "before"}`, `{"fail": "after"}`, `{"exit_code": 3}`, `{"no_write": true}`, `{"hang": true}`, `{"start_delay": "700ms"}`,
	`{"print_secret": true}`, `{"print_secret": true, "fail": "before"}`, `{"print_bytes": 3000000}`, `{"fork_child": "900ms"}`,
	`{"write_delay": "300ms"}`, `{"reload_fail": true}`, `{"restart_fail": ["web", "pipelined"]}`, `{"on": ["reload", "restart"], "hang": true}`,
	`{"on": ["reload"], "die": true}`,
), nlserverFaults(true,
	`{"die": true}`, `{"write_half": true}`, `{"write_empty": true}`, `{"garbage": true}`, `{"die": true, "write_half": true}`,
	`{"die": true, "write_empty": true}`, `{"hang_after_truncate": true}`, `{"hang_after_truncate": true, "ignore_sigterm": true}`,
))

func (s *soak) rotation(random *rand.Rand) error {
	err := s.rotate()
	s.nap(random, 2*time.Second)
	return err
}

func (s *soak) rotate() error {
	version, secret, err := s.Rotate(s.Ctx, instance)
	if err == nil {
		s.version, s.secret, s.Secrets = version, secret, append(s.Secrets, secret)
	}
	return err
}

// refusedSecret is a version that nobody can use. The one after it is good.
func refusedSecret(s *soak, random *rand.Rand) error {
	data := container.Credential("p8e-" + strconv.FormatUint(random.Uint64(), 36) + strings.Repeat("r", 20))
	s.Secrets = append(s.Secrets, data["client_secret"].(string))
	switch random.IntN(5) {
	case 0:
		data["client_secret"] = data["client_secret"].(string) + "\n"
	case 1:
		data["client_id"] = "with/slash"
	case 2:
		delete(data, "technical_account_id")
	case 3:
		data["ims_org_id"] = 7
	case 4:
		data["client_secret"] = ""
	}
	_, err := s.Vault.Write(s.Ctx, s.SecretPath(instance), data)
	s.nap(random, 3*time.Second)
	return errors.Join(err, s.rotate())
}

func vaultAnswers(status int) fault {
	return fault{name: fmt.Sprintf("Vault answers %d", status), do: func(s *soak, random *rand.Rand) error {
		s.Proxy.Answer("/v1/", status, "this is the soak")
		s.nap(random, 2*time.Second)
		s.Proxy.Forward()
		return nil
	}}
}

// nlserverFaults rotate while nlserver has a fault. A damaging one strikes one run, and is excused for what others lose until
// its damage was put right: the whole pre-image goes back, and with it what they wrote since.
func nlserverFaults(damages bool, switches ...string) []fault {
	var all []fault
	for _, json := range switches {
		if damages {
			json = strings.Replace(json, "{", `{"times": 1, `, 1)
		}
		all = append(all, fault{name: "nlserver " + json, do: func(s *soak, random *rand.Rand) error {
			from := time.Now()
			if err := errors.Join(s.SetFaults(s.Ctx, json), s.rotate()); err != nil {
				return err
			}
			err := s.awaitRun(from, 3*time.Second)
			s.nap(random, 1500*time.Millisecond)
			err = errors.Join(err, s.SetFaults(s.Ctx, ""), s.endHanging(from))
			if damages && err == nil {
				err = errors.Join(s.awaitApplied(s.version), s.excuse(from))
			}
			return err
		}})
	}
	return all
}

// excuse notes the time of the first run since a time: from when its pre-image was saved, to the next run, before which the
// daemon has put right what the first one left, or to now where none was needed.
func (s *soak) excuse(from time.Time) error {
	const saved = 2 * time.Second // before the run, at the most
	runs, err := s.setsSince(from)
	if len(runs) > 0 {
		to := time.Now()
		if len(runs) > 1 {
			to = runs[1].Time
		}
		if earliest := runs[0].Time.Add(-saved); from.Before(earliest) {
			from = earliest
		}
		s.excused = append(s.excused, window{from, to})
	}
	return err
}

func (s *soak) setsSince(from time.Time) ([]container.Run, error) {
	runs, err := s.Runs()
	return slices.DeleteFunc(runs, func(r container.Run) bool {
		return r.Event != "start" || r.Kind != "set" || r.Time.Before(from)
	}), err
}

// awaitRun waits until nlserver was asked for something, unless the file or the daemon is away for so long.
func (s *soak) awaitRun(from time.Time, most time.Duration) error {
	for deadline := time.Now().Add(most); time.Now().Before(deadline) && s.Ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if runs, err := s.setsSince(from); err != nil || len(runs) > 0 {
			return err
		}
	}
	return nil
}

// endHanging ends runs that would hang for an hour: of a daemon that was killed, nobody else does.
func (s *soak) endHanging(from time.Time) error {
	runs, err := s.Runs()
	for _, r := range runs {
		if r.Event != "waiting" || !strings.HasPrefix(r.At, "hang") || r.Time.Before(from) {
			continue
		}
		exe, gone := os.Readlink(filepath.Join("/proc", strconv.Itoa(r.PID), "exe"))
		if gone == nil && strings.HasPrefix(exe, filepath.Join(s.Home, "bin")+"/") {
			syscall.Kill(r.PID, syscall.SIGKILL)
		}
	}
	return err
}

// awaitApplied waits until the daemon has applied a version. While a fault of the host has the file or the daemon away, that
// takes as long as it takes.
func (s *soak) awaitApplied(version int) error {
	var status container.Status
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && s.Ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		status, _ = s.Asker().Status(s.Ctx)
		if world.One(status, instance).AppliedVersion >= version {
			return nil
		}
	}
	return fmt.Errorf("version %d is not applied: %+v", version, status)
}
