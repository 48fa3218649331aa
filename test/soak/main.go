// Command soak lets the daemon live through minutes of rotations, hand edits, renames and deletes, and then looks: in
// sync, every other byte as the last editor left it, and no secret anywhere.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
)

func main() {
	minutes := flag.Float64("minutes", 10, "how long")
	every := flag.Duration("rotate", 5*time.Second, "time between two rotations")
	pause := flag.Duration("pause", 200*time.Millisecond, "mean time between two edits of an editor")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, time.Duration(*minutes*float64(time.Minute)), *every, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		stop()
		os.Exit(1)
	}
}

const instance = "prod"

func soak(ctx context.Context, while, every, pause time.Duration) error {
	dir, err := os.MkdirTemp("", "campaign-credsync-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := container.New(ctx, dir, container.Options{
		Instances: []string{instance},
		Settings:  "watch: {poll: 1s}\ndrift: {max_reverts: 1000000}\nlog: {level: debug}\n",
		Progress:  os.Stderr,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	crowd := &editors.Crowd{Path: c.File(instance), Styles: editors.AllStyles, Pause: pause, Meddle: spoilOne}
	document, err := os.ReadFile(crowd.Path)
	if err == nil {
		err = os.WriteFile(crowd.Path, editors.Prepare(document, len(crowd.Styles)), 0o640)
	}
	if err != nil {
		return err
	}
	_, first, err := c.Rotate(ctx, instance)
	if err != nil {
		return err
	}
	d, err := c.Start(nil)
	if err != nil {
		return err
	}
	defer d.Kill()
	if err := await(ctx, c, 1); err != nil {
		return fmt.Errorf("%w\n%s", err, d.Log())
	}

	// Editors go on for a little longer than rotations, so that the very last edit is nobody's but theirs.
	rotating, stopRotating := context.WithTimeout(ctx, while)
	defer stopRotating()
	editing, stopEditing := context.WithTimeout(ctx, while+3*time.Second)
	defer stopEditing()
	type rotations struct {
		secrets []string
		version int
		err     error
	}
	rotated := make(chan rotations, 1)
	go func() {
		r := rotations{secrets: []string{first}, version: 1}
		for r.err == nil && sleep(rotating, every) {
			var secret string
			if r.version, secret, r.err = c.Rotate(ctx, instance); r.err == nil {
				r.secrets = append(r.secrets, secret)
			}
		}
		rotated <- r
	}()
	result, err := crowd.Run(editing)
	r := <-rotated
	if err = errors.Join(err, r.err); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(d.Log()))
	}
	if err := await(ctx, c, r.version); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(d.Log()))
	}
	if err := check(ctx, c, d, result, r.secrets); err != nil {
		return err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("soaked for %s: %d rotations, %d edits, %d reverts; in sync with version %d, every other byte as the last editor left it, no secret in any output\n",
		while, len(r.secrets)-1, result.Edits, status.Instances[0].RevertedTotal, status.Instances[0].AppliedVersion)
	return d.Stop()
}

func await(ctx context.Context, c *container.Container, version int) error {
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := c.Await(limited, func(s container.Status) bool { return s.Applied(version) })
	return err
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// spoilOne changes one of the managed attributes.
func spoilOne(document []byte) []byte {
	names := []string{"authIMSTAClientSecret", "authIMSTAClientId", "authIMSTAId"}
	values := []string{"", "mallory"}
	return container.Spoil(document, names[rand.N(len(names))], values[rand.N(len(values))])
}

// check is what must hold at the end.
func check(ctx context.Context, c *container.Container, d *container.Daemon, result editors.Result, secrets []string) error {
	last := secrets[len(secrets)-1]
	if got, err := c.SecretOnDisk(ctx, instance); err != nil || got != last {
		return fmt.Errorf("the secret on disk is not the newest (%w)", err)
	}
	document, err := os.ReadFile(c.File(instance))
	if err != nil {
		return err
	}
	if !bytes.Equal(masked(document), masked(result.Last)) {
		return fmt.Errorf("other bytes changed:\n%s\nwant:\n%s", document, result.Last)
	}
	windows, err := c.Windows()
	if err != nil {
		return err
	}
	for _, loss := range result.Losses {
		if !windows.Overlap(loss.Written, loss.Noticed) {
			return fmt.Errorf("an update was lost: %+v", loss)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(c.File(instance)))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name()[0] == '.' {
			return fmt.Errorf("stray file %s", e.Name())
		}
	}
	return noSecret(ctx, c, d, secrets)
}

var managedValues = regexp.MustCompile(`(authIMSTA(?:ClientId|ClientSecret|Id)=)"[^"]*"`)

// masked empties the managed attributes.
func masked(document []byte) []byte { return managedValues.ReplaceAll(document, []byte(`$1""`)) }

// noSecret looks for every secret that ever was, in all that the daemon printed, answers and keeps.
func noSecret(ctx context.Context, c *container.Container, d *container.Daemon, secrets []string) error {
	status, statusErrors, _ := c.Command(ctx, "status", "--json")
	places := map[string][]byte{"log": []byte(d.Log()), "status": []byte(status + statusErrors)}
	for _, dir := range []string{c.StateDir(), filepath.Join(c.Home, "conf")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			places[path], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			return err
		}
	}
	for place, text := range places {
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				return fmt.Errorf("a secret is in %s", place)
			}
		}
	}
	return nil
}

// tail is the end of a log.
func tail(log string) string { return log[max(0, len(log)-4000):] }
