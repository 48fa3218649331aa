package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Daemon is a campaign-credsync that runs.
type Daemon struct {
	c       *Container
	command *exec.Cmd
	ended   chan struct{}
	exit    error
	output  *output
}

// output keeps all that the daemon printed, and hands it on.
type output struct {
	mu   sync.Mutex
	all  bytes.Buffer
	also io.Writer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.also != nil {
		o.also.Write(p)
	}
	return o.all.Write(p)
}

// Start starts the daemon. Its log is kept, and copied to also where that is not nil.
func (c *Container) Start(also io.Writer) (*Daemon, error) { return c.StartCommand(also, "run") }

// StartCommand is Start for another command, of which all that it prints is kept.
func (c *Container) StartCommand(also io.Writer, args ...string) (*Daemon, error) {
	d := &Daemon{c: c, ended: make(chan struct{}), output: &output{also: also}}
	d.command = exec.Command(c.daemon, append([]string{"--config", c.Config}, args...)...)
	d.command.Stdout, d.command.Stderr = d.output, d.output
	// What is started here must not outlive a starter that is killed.
	d.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if id := uint32(c.options.User); id != 0 {
		d.command.SysProcAttr.Credential = &syscall.Credential{Uid: id, Gid: id}
	}
	if err := d.command.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	go func() {
		d.exit = d.command.Wait()
		close(d.ended)
	}()
	return d, nil
}

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.command.Process.Pid }

// Signal sends a signal.
func (d *Daemon) Signal(s os.Signal) error { return d.command.Process.Signal(s) }

// Ended is closed when the daemon has ended, by itself or not.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// ExitStatus is what the daemon ended with, -1 when it was a signal. To be called when it has ended.
func (d *Daemon) ExitStatus() int { return d.command.ProcessState.ExitCode() }

// Stop ends the daemon with SIGTERM and returns what it ended with.
func (d *Daemon) Stop() error {
	d.Signal(syscall.SIGTERM)
	<-d.ended
	return d.exit
}

// Kill ends the daemon with SIGKILL.
func (d *Daemon) Kill() {
	d.Signal(syscall.SIGKILL)
	<-d.ended
}

// Log returns what the daemon has printed.
func (d *Daemon) Log() string {
	d.output.mu.Lock()
	defer d.output.mu.Unlock()
	return d.output.all.String()
}

// Status is what status --json prints.
type Status struct {
	Instances []InstanceStatus `json:"instances"`
	Warnings  []Warning        `json:"warnings"`
	Vault     struct {
		Used      bool `json:"used"`
		Reachable bool `json:"reachable"`
	} `json:"vault"`
}

// Warning is what concerns no one instance.
type Warning struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// InstanceStatus is what it prints of one instance.
type InstanceStatus struct {
	Name           string    `json:"name"`
	State          string    `json:"state"`
	Reason         string    `json:"reason"`
	WantedVersion  int       `json:"wanted_version"`
	AppliedVersion int       `json:"applied_version"`
	AppliedAt      time.Time `json:"applied_at"`
	ActivatedAt    time.Time `json:"activated_at"`
	RevertedTotal  int       `json:"drift_reverted_total"`
	Proven         bool      `json:"proven"`
	LastError      string    `json:"last_error"`
}

// Is reports whether every instance is in state.
func (s Status) Is(state string) bool {
	for _, in := range s.Instances {
		if in.State != state {
			return false
		}
	}
	return len(s.Instances) > 0
}

// Applied reports whether every instance is in sync with at least this version.
func (s Status) Applied(version int) bool {
	for _, in := range s.Instances {
		if in.AppliedVersion < version {
			return false
		}
	}
	return s.Is("in_sync")
}

// Command runs another command of the daemon's executable and returns what it prints, and its exit status.
func (c *Container) Command(ctx context.Context, args ...string) (stdout, stderr string, status int) {
	command := exec.CommandContext(ctx, c.command, append([]string{"--config", c.Config}, args...)...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	command.Run()
	return out.String(), errs.String(), command.ProcessState.ExitCode()
}

// Status asks the daemon.
func (c *Container) Status(ctx context.Context) (Status, error) {
	var s Status
	stdout, stderr, _ := c.Command(ctx, "status", "--json")
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		return s, fmt.Errorf("status: %w: %s%s", err, stdout, stderr)
	}
	return s, nil
}

// Await returns the first status that fits. It asks every few milliseconds, as the daemon offers nothing to wait for.
func (c *Container) Await(ctx context.Context, fits func(Status) bool) (Status, error) {
	for {
		s, err := c.Status(ctx)
		if err == nil && fits(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("waited in vain; last status %+v, %w", s, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// AwaitSecret returns when the instance's file holds the secret.
func (c *Container) AwaitSecret(ctx context.Context, instance, secret string) error {
	for {
		got, err := c.SecretOnDisk(ctx, instance)
		if err == nil && got == secret {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("instance %s: the file never held the secret: %w", instance, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
