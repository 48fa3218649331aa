package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"campaign-credsync/test/container"
	"campaign-credsync/test/editors"
)

// measureInstances measures daemons with more and more instances, each with a secret of its own in a JSON file: what is done for one must not
// grow with their number.
func measureInstances(ctx context.Context, dir string, reverts int) (all []figure, err error) {
	for _, n := range []int{50, 200, 600} {
		figures, err := measureCrowd(ctx, filepath.Join(dir, fmt.Sprint(n)), n, reverts)
		if all = append(all, figures...); err != nil {
			return all, fmt.Errorf("%d instances: %w", n, err)
		}
	}
	return all, nil
}

func measureCrowd(ctx context.Context, dir string, n, reverts int) ([]figure, error) {
	options := container.Options{
		NoVault: true, Secrets: map[string]string{}, Campaign: "timeout: 10m", Progress: os.Stderr,
		Settings: fmt.Sprintf("watch: {poll: 1s}\ndrift: {max_reverts: %d}\n", reverts+1),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for i := range n {
		name := fmt.Sprintf("i%03d", i)
		file := filepath.Join(dir, name+".json")
		secret := fmt.Sprintf(`{"ims_org_id":"0123456789ABCDEF01234567@AdobeOrg","client_id":"%032x","technical_account_id":"a@techacct.adobe.com","client_secret":"p8e-%032x"}`, i, i)
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			return nil, err
		}
		options.Instances = append(options.Instances, name)
		options.Secrets[name] = "source: file, file: " + file
	}
	c, err := container.New(ctx, dir, options)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	d, err := untilReady(ctx, c, filepath.Join(dir, "notify"))
	if err != nil {
		return nil, err
	}
	defer d.Stop()
	started, err := usageOf(d.PID())
	if err != nil {
		return nil, err
	}
	const polls = 10 * time.Second
	if err := wait(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	before, err := usageOf(d.PID())
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, polls); err != nil {
		return nil, err
	}
	after, err := usageOf(d.PID())
	if err != nil {
		return nil, err
	}
	file := c.File(options.Instances[n/2])
	right, wrong, err := contents(file)
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	for range reverts {
		if took, ok := revert(ctx, file, editors.InPlace, wrong, right); ok {
			times = append(times, took)
		}
	}
	if len(times) < reverts {
		return nil, fmt.Errorf("%w: %d reverts", errLost, reverts-len(times))
	}
	each := func(cpu time.Duration, times float64) string {
		return fmt.Sprintf("%.0f µs", float64(cpu.Microseconds())/float64(n)/times)
	}
	return []figure{
		{fmt.Sprintf("%d instances, CPU of the start, for each", n), each(started.cpu, 1), "as with fewer"},
		{fmt.Sprintf("%d instances, CPU of a poll, for each", n), each(after.cpu-before.cpu, polls.Seconds()), "as with fewer"},
		{fmt.Sprintf("%d instances, revert of one at a poll of 1 s, p50 and p99", n), ms(quantile(times, 0.5)) + ", " + ms(quantile(times, 0.99)), "as with fewer"},
	}, nil
}

// untilReady starts a daemon and waits for its READY=1, which costs it nothing that is measured.
func untilReady(ctx context.Context, c *container.Container, socket string) (*container.Daemon, error) {
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	os.Setenv("NOTIFY_SOCKET", socket)
	d, err := c.Start(nil)
	os.Unsetenv("NOTIFY_SOCKET")
	if err != nil {
		return nil, errors.Join(err, manager.Close())
	}
	go func() { // systemd reads on
		defer manager.Close()
		<-d.Ended()
	}()
	manager.SetReadDeadline(time.Now().Add(10 * time.Minute))
	buffer := make([]byte, 8192)
	ready := make(chan error, 1)
	go func() {
		for isReady := false; ; {
			size, err := manager.Read(buffer)
			if !isReady && (err != nil || strings.HasPrefix(string(buffer[:size]), "READY=1")) {
				isReady = true
				ready <- err
			}
			if err != nil {
				return
			}
		}
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		d.Kill()
		return nil, fmt.Errorf("%w\n%s", err, d.Log())
	}
	return d, nil
}
