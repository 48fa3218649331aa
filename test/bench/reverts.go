package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
)

// floor is the least that could put a file back: it waits for a writer to close or to rename, reads, writes the right
// bytes beside, syncs, renames over, and syncs the directory. It cares for nothing else, and returns only with an error.
func floor(path string) error {
	right, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	directory, err := os.Open(dir)
	if err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO); err != nil {
		return err
	}
	fmt.Println("watching")
	events := make([]byte, 64<<10)
	for {
		if _, err := unix.Read(fd, events); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return err
		}
		seen, err := os.ReadFile(path)
		if err != nil || bytes.Equal(seen, right) {
			continue
		}
		beside := filepath.Join(dir, ".floor")
		f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
		if err != nil {
			return err
		}
		_, err = f.Write(right)
		if err = errors.Join(err, f.Sync(), f.Close(), os.Rename(beside, path), directory.Sync()); err != nil {
			return err
		}
	}
}

func measureReverts(ctx context.Context, c *container.Container, n int) ([]figure, error) {
	d, err := running(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.Stop()
	file := c.File(instance)
	right, wrong, err := contents(file)
	if err != nil {
		return nil, err
	}
	floorFile := filepath.Join(c.Dir, "floor", filepath.Base(file))
	stop, err := startFloor(floorFile, right)
	if err != nil {
		return nil, err
	}
	defer stop()
	var figures []figure
	var lost error
	for _, style := range []editors.Style{editors.InPlace, editors.Rename, editors.Pieces} {
		var floors, daemons []time.Duration
		missed := 0
		for range n {
			for _, side := range []struct {
				file  string
				times *[]time.Duration
			}{{floorFile, &floors}, {file, &daemons}} {
				took, ok := revert(ctx, side.file, style, wrong, right)
				if ctx.Err() != nil {
					return figures, ctx.Err()
				}
				if ok {
					*side.times = append(*side.times, took)
				} else if side.file == file {
					missed++
				}
			}
		}
		for _, q := range []struct {
			name  string
			share float64
			asked string
		}{{"p50", 0.50, "<= 1.3"}, {"p99", 0.99, "<= 2.0"}} {
			ours, theirs := quantile(daemons, q.share), quantile(floors, q.share)
			figures = append(figures, figure{
				fmt.Sprintf("drift revert, %s, %s to floor", style, q.name),
				fmt.Sprintf("%.2f (%s / %s)", float64(ours)/float64(theirs), ms(ours), ms(theirs)), q.asked,
			})
		}
		figures = append(figures, figure{fmt.Sprintf("drift revert, %s, lost of %d", style, n), fmt.Sprint(missed), "0"})
		if missed > 0 {
			lost = errors.Join(lost, fmt.Errorf("%w: %d reverts (%s)", errLost, missed, style))
		}
	}
	return figures, lost
}

// contents are what a configuration file holds, and the same with another secret.
func contents(file string) (right, wrong []byte, err error) {
	if right, err = os.ReadFile(file); err != nil {
		return nil, nil, err
	}
	secret, err := container.Attribute(right, "authIMSTAClientSecret")
	if err != nil {
		return nil, nil, err
	}
	return right, bytes.Replace(right, []byte(secret), []byte("@bm90IHRoZSBzZWNyZXQ="), 1), nil
}

func startFloor(file string, right []byte) (stop func(), err error) {
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, right, 0o640)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "floor", file)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	if _, err := out.Read(make([]byte, 64)); err != nil {
		return nil, err
	}
	return func() { command.Process.Kill(); command.Wait() }, nil
}

// revert writes the wrong bytes and measures, from the end of that write, until the right ones are at the path.
func revert(ctx context.Context, file string, style editors.Style, wrong, right []byte) (took time.Duration, ok bool) {
	if err := editors.Write(file, style, wrong); err != nil {
		return 0, false
	}
	began := time.Now()
	for deadline := began.Add(5 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; runtime.Gosched() {
		// Opening the path costs the one who puts it back nothing; reading it in a loop would, so look at the size first.
		var stat unix.Stat_t
		if unix.Stat(file, &stat) != nil || stat.Size != int64(len(right)) {
			continue
		}
		seen, err := os.ReadFile(file)
		if err == nil && bytes.Equal(seen, right) {
			return time.Since(began), true
		}
	}
	return 0, false
}
