// Package nlserver runs Campaign's own binary: to write a credential, and to tell the running processes of it. It finds out which options
// there are, and sees to the environment, the time limits and the output. It knows no file of an instance, and an exit status is no proof.
package nlserver

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/credential"
)

// Config tells where Campaign's nlserver is and how it is run.
type Config struct {
	// Home is Campaign's directory, absolute. It is the working directory of every run.
	Home string
	// Executable is absolute or relative to Home.
	Executable string
	// EnvScript is the shell script that sets up nlserver's environment, absolute or relative to Home; "" means none, and then
	// nlserver gets the minimal environment only.
	EnvScript string
	// Command is the option of `nlserver config` that takes the credential, or auto: the best that the executable offers.
	Command string
	// StateDir is the daemon's. It holds which process restarts a module, if that outlives the daemon.
	StateDir string
	// Via says who runs nlserver for activation, one of the Via constants; "" is ViaDirect. Socket is that of the activation service.
	Via, Socket string
	// Prove says that after a restart the module is looked for.
	Prove bool
	// MinInterval is the least time from the end of a restart of a module, or its begin where the end is not known, to the next one.
	MinInterval time.Duration
	// Timeout bounds each single run of nlserver and of the environment script.
	Timeout time.Duration
	Logger  *slog.Logger
	Meter   Meter // nil: nobody counts
}

// Meter counts runs, by the instance that they are for (empty: all) and what they do: one of the do constants. Its methods may be called
// concurrently, and do not block.
type Meter interface {
	// Expect announces runs, and the module that they restart, if any.
	Expect(instance, do, module string)
	// Ran counts a run that has ended: "ok", "failed" or "timeout".
	Ran(instance, do, result string)
	// Restarted counts a restart of a module that was begun.
	Restarted(instance, module string)
}

// Who runs nlserver for activation.
const (
	ViaAuto   = "auto"   // the activation service where its socket is there, else this process
	ViaSocket = "socket" // the activation service
	ViaDirect = "direct" // this process
)

// What nlserver is run for.
const (
	doSet     = "set" // of a credential
	doReload  = "reload"
	doRestart = "restart"
	doOptions = "options" // lists what this build takes
)

// Expect announces to the meter what will be run for an instance with these steps.
func (b *Binary) Expect(instance string, steps []credential.Step) {
	if b.cfg.Meter == nil {
		return
	}
	b.cfg.Meter.Expect(instance, doSet, "")
	for _, step := range steps {
		if step.Kind == credential.StepReload {
			b.cfg.Meter.Expect("", doReload, "")
			continue
		}
		module, of, _ := strings.Cut(step.Module, "@")
		b.cfg.Meter.Expect(of, doRestart, module)
	}
}

// ran counts a run that has ended.
func (b *Binary) ran(instance, do string, err error) {
	result := "ok"
	switch {
	case b.cfg.Meter == nil:
		return
	case errors.Is(err, context.DeadlineExceeded):
		result = "timeout"
	case err != nil:
		result = "failed"
	}
	b.cfg.Meter.Ran(instance, do, result)
}

// Binary is Campaign's nlserver. It may be used by several goroutines at once; whoever calls sees to it that an
// instance has one run with a credential at a time.
type Binary struct {
	cfg      Config                // with whole paths
	offer    atomic.Pointer[offer] // nil: nlserver is asked
	restarts map[string]*restart   // newest by module, of those that failed or have not ended, or nil; for Activate and Retry
	forgives bool                  // an operator has: what earlier processes left does not count
	// complaint is the last that env_script printed though it ended well.
	complaint atomic.Pointer[string]
}

// New prepares the runs and touches nothing: what is missing shows in the first run.
func New(config Config) *Binary {
	for _, path := range []*string{&config.Executable, &config.EnvScript} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(config.Home, *path)
		}
	}
	return &Binary{cfg: config, restarts: map[string]*restart{}}
}

// Run hands a credential to nlserver, which writes it into the configuration of the instance. It returns what nlserver said that
// may be quoted, and how long it ran. No error means exit status 0, which proves nothing: read the file again. An error says little
// about the file either: nlserver may have written before it failed, or before it was stopped for its timeout.
//
// inherit, which may be nil, is a descriptor that only this nlserver and its own children inherit. The error of a run
// that ended because of ctx or the timeout wraps context.Canceled or context.DeadlineExceeded.
type Run func(ctx context.Context, inherit *os.File) (said string, took time.Duration, err error)

// Prepare does all that comes before nlserver is handed the credential: the checks, the environment script, and the choice of the
// option.
func (b *Binary) Prepare(ctx context.Context, instance string, c credential.Credential) (Run, error) {
	key, err := KeyArgument(c.PrivateKey)
	if err = cmp.Or(c.Check(), err); err != nil {
		return nil, fmt.Errorf("the credential of instance %s is not handed to nlserver: %w", instance, err)
	}
	env, err := b.environment(ctx)
	if err != nil {
		return nil, err
	}
	option, err := b.chooseOption(ctx, env)
	if err != nil {
		return nil, err
	}
	// The only place where the secrets become part of a command line.
	fields := []string{c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal()}
	if option == commandJWT && key != "" {
		fields = append(fields, key)
	} else if key != "" {
		b.cfg.Logger.Warn("the private key is not handed to nlserver, its option takes none", "instance", instance, "option", "-"+option,
			"remedy", "remove private_key from the secret, unless it is still a JWT credential")
	}
	step := "nlserver config -" + option + " for instance " + instance
	args := []string{"config", "-instance:" + instance, "-" + option + ":" + strings.Join(fields, "/")}
	return func(ctx context.Context, inherit *os.File) (string, time.Duration, error) {
		secrets := []credential.Secret{c.ClientSecret, c.PrivateKey}
		printed, took, err := b.nlserver(ctx, step, child{args: args, env: env, inherit: inherit}, secrets...)
		b.ran(instance, doSet, err)
		if _, exited := errors.AsType[*exec.ExitError](err); exited {
			b.offer.Store(nil) // behind a wrapper script that stayed as it is, another build may know other options
		}
		return excerpt(redact(printed, secrets...)), took, err
	}, nil
}

// KeyArgument is the private key as nlserver is handed it: the base64, on one line, of the PEM without its trailing
// newline. A key that is base64 already is taken as it is.
func KeyArgument(key credential.Secret) (string, error) {
	text := strings.TrimRight(key.Reveal(), "\r\n")
	if text == "" {
		return "", nil
	}
	if strings.Contains(text, "-----BEGIN ") {
		return base64.StdEncoding.EncodeToString([]byte(text)), nil
	}
	oneLine := strings.NewReplacer("\r", "", "\n", "").Replace(text)
	if _, err := base64.StdEncoding.DecodeString(oneLine); err != nil {
		// The error of the decoder would tell a position in the key; nobody needs it.
		return "", fmt.Errorf("field %s is neither PEM nor base64", credential.FieldPrivateKey)
	}
	return oneLine, nil
}

const remedy = "set campaign.home and campaign.nlserver to where Campaign is installed"

// inspect looks at the program before it is started. On a dead mount a stat hangs alone. A start holds the processor until the
// program is read: with one, the whole daemon.
func (b *Binary) inspect() (os.FileInfo, error) {
	info, err := os.Stat(b.cfg.Executable)
	if err != nil {
		err = fmt.Errorf("%w (%s)", err, remedy)
	}
	return info, err
}

// nlserver runs nlserver and waits for it. It returns the end of what nlserver printed, and how long it ran. step names the run in
// errors, which quote what may be quoted of the output. secrets are what c.args hold of them.
func (b *Binary) nlserver(ctx context.Context, step string, c child, secrets ...credential.Secret) (string, time.Duration, error) {
	printed, took, err := b.execute(ctx, c)
	return printed, took, b.explain(step, printed, err, secrets...)
}

// execute runs nlserver with the arguments of c.
func (b *Binary) execute(ctx context.Context, c child) (printed string, took time.Duration, err error) {
	if _, err := b.inspect(); err != nil {
		return "", 0, err
	}
	c.args = append([]string{b.cfg.Executable}, c.args...)
	printed, took, err = b.run(ctx, c)
	if _, notStarted := errors.AsType[*fs.PathError](err); notStarted {
		err = fmt.Errorf("%w (%s)", err, remedy)
	}
	return printed, took, err
}

// explain makes the error of a run that did not end well, which quotes what may be quoted of its output.
func (b *Binary) explain(step, printed string, err error, secrets ...credential.Secret) error {
	text := redact(printed, secrets...)
	b.cfg.Logger.Debug("nlserver ran", "step", step, "output", excerpt(text))
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w%s", step, err, saying(text))
}
