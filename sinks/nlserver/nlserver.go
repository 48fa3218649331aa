package nlserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"campaign-credsync/internal/credential"
)

// Config tells where Campaign's nlserver is and how it is run. The zero value of each field but Home and StateDir is a
// usable default.
type Config struct {
	// Home is Campaign's directory, absolute. It is the working directory of every run.
	Home string
	// Executable is absolute or relative to Home; "" means bin/nlserver.
	Executable string
	// EnvScript is the shell script that sets up nlserver's environment, relative to Home; "" means none, and then
	// nlserver gets the minimal environment only.
	EnvScript string
	// Command is the option of `nlserver config` that takes the credential: setimsoauth, setimsauth or setimsjwtauth.
	// auto, or "", means the best that the executable offers.
	Command string
	// StateDir is the daemon's. It holds which process restarts a module, if that outlives the daemon.
	StateDir string
	// Timeout bounds each single run of nlserver and of the environment script; 0 means 60 s.
	Timeout time.Duration
	// Logger gets debug lines and warnings; nil discards them.
	Logger *slog.Logger
}

// Server runs Campaign's nlserver. It may be used by several goroutines at once; who calls sees to it that an
// instance has one run of set at a time.
type Server struct {
	home       string
	executable string
	envScript  string
	command    string
	timeout    time.Duration
	stateDir   string
	logger     *slog.Logger
	offered    offeredOption
	restarts   *restarts
	complaint  atomic.Pointer[string] // the last that env_script printed and went on
}

// New prepares the runs and touches nothing: what is missing shows in the first run.
func New(config Config) *Server {
	n := &Server{
		home:       filepath.Clean(config.Home),
		executable: config.Executable,
		envScript:  config.EnvScript,
		command:    strings.TrimPrefix(config.Command, "-"),
		timeout:    config.Timeout,
		stateDir:   config.StateDir,
		logger:     config.Logger,
		offered:    newOfferedOption(),
		restarts:   &restarts{latest: map[string]*restart{}},
	}
	if n.executable == "" {
		n.executable = "bin/nlserver"
	}
	n.executable = n.underHome(n.executable)
	if n.envScript != "" {
		n.envScript = n.underHome(n.envScript)
	}
	if n.command == "" {
		n.command = commandAuto
	}
	if n.timeout <= 0 {
		n.timeout = time.Minute
	}
	if n.logger == nil {
		n.logger = slog.New(slog.DiscardHandler)
	}
	return n
}

func (n *Server) underHome(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(n.home, path)
}

// Result is what one run of nlserver left behind.
type Result struct {
	// Took is the time from the start of nlserver to its end; the environment script and the question for the option
	// are not in it.
	Took time.Duration
	// Output is an excerpt of what nlserver printed, on either stream, redacted and escaped: one line of a log.
	Output string
	// ExitCode is nlserver's exit status, or -1 when it was not started or ended by a signal.
	ExitCode int
}

// Ready is a run that hands over a credential, of which only the run itself is left to be done.
type Ready struct {
	nlserver *Server
	step     string
	rest     command
}

// Run hands the credential to nlserver, which writes it into the configuration of the instance. A nil error says that
// nlserver was content, which no contract of its exit status makes a proof: read the file again. An error says little
// about the file either: nlserver may have written before it failed, or before it was stopped for its timeout.
//
// inherit, which may be nil, is a descriptor that only this nlserver and its own children inherit. The error of a run
// that ended because of ctx or the timeout wraps context.Canceled or context.DeadlineExceeded.
func (r *Ready) Run(ctx context.Context, inherit *os.File) (Result, error) {
	r.rest.inherit = inherit
	result, err := r.nlserver.execute(ctx, r.step, r.rest)
	if err != nil && result.ExitCode > 0 {
		r.nlserver.ForgetOption()
	}
	return result, err
}

// Prepare does all that comes before nlserver is handed the credential: the checks, the environment script, and
// the choice of the option.
func (n *Server) Prepare(ctx context.Context, instance string, c credential.Credential) (*Ready, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("the credential of instance %s is not handed to nlserver: %w", instance, err)
	}
	key, err := keyArgument(c.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("the credential of instance %s is not handed to nlserver: %w", instance, err)
	}
	redact := redactor(c, key)
	executable, err := n.inspectExecutable()
	if err != nil {
		return nil, err
	}
	env, err := n.environment(ctx, redact)
	if err != nil {
		return nil, err
	}
	option, err := n.chooseOption(ctx, env, executable, redact)
	if err != nil {
		return nil, err
	}
	if key != "" && option != commandJWT {
		n.logger.Warn("the private key is not handed to nlserver, its option takes none",
			"instance", instance, "option", "-"+option)
	}
	return &Ready{n, "nlserver config -" + option + " for instance " + instance, command{
		args:   []string{"config", "-instance:" + instance, setArgument(option, c, key)},
		env:    env,
		secret: true,
		redact: redact,
	}}, nil
}

// setArgument is the only place where the secrets become part of a command line.
func setArgument(option string, c credential.Credential, key string) string {
	fields := []string{c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal()}
	if option == commandJWT && key != "" {
		fields = append(fields, key)
	}
	return "-" + option + ":" + strings.Join(fields, "/")
}

// keyArgument is the private key as nlserver takes it: the base64, on one line, of the PEM without its trailing
// newline. A key that is base64 already is taken as it is.
func keyArgument(key credential.Secret) (string, error) {
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

// command is one run of the executable with everything that differs between runs.
type command struct {
	args    []string
	env     []string
	inherit *os.File
	secret  bool // args hold the secret
	redact  func(string) string
}

// execute runs nlserver and waits for it. step names the run in errors.
func (n *Server) execute(ctx context.Context, step string, r command) (Result, error) {
	out := newCapture(captureHalf)
	end, err := (&child{
		path: n.executable, args: r.args, dir: n.home, env: r.env,
		inherit: r.inherit, noCore: r.secret, stdout: out, stderr: out,
	}).run(ctx, n.timeout)
	result := Result{Took: end.took, ExitCode: end.exitCode}
	text := out.text(end.complete, r.redact)
	result.Output = excerptOf(text, summaryLength)
	n.logger.Debug("nlserver ran", "step", step, "duration", result.Took, "exit", result.ExitCode,
		"output", excerptOf(text, excerptLength))
	switch {
	case err != nil && !end.started:
		return result, fmt.Errorf("%s: %w", step, n.explainStart(err))
	case err != nil:
		return result, fmt.Errorf("%s: %w%s", step, err, saying(text))
	case end.failure != "":
		return result, fmt.Errorf("%s: %s%s", step, end.failure, saying(text))
	}
	return result, nil
}

// executableKey tells one executable from what may be put in its place.
type executableKey struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

// inspectExecutable makes sure that there is something to run, as the kernel's own answers ("no such file") name
// neither the key of the configuration nor what to do.
func (n *Server) inspectExecutable() (executableKey, error) {
	info, err := os.Stat(n.executable)
	const remedy = "set campaign.home and campaign.nlserver to where Campaign is installed"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return executableKey{}, fmt.Errorf("nlserver is missing: no file %s (%s): %w", n.executable, remedy, fs.ErrNotExist)
	case err != nil:
		return executableKey{}, fmt.Errorf("look for nlserver: %w (%s)", err, remedy)
	case info.IsDir():
		return executableKey{}, fmt.Errorf("nlserver cannot be run: %s is a directory (%s)", n.executable, remedy)
	case !info.Mode().IsRegular():
		return executableKey{}, fmt.Errorf("nlserver cannot be run: %s is not a regular file (%s)", n.executable, remedy)
	case info.Mode().Perm()&0o111 == 0:
		return executableKey{}, fmt.Errorf("nlserver cannot be run: %s is not executable (chmod +x it, or %s): %w",
			n.executable, remedy, fs.ErrPermission)
	}
	if home, err := os.Stat(n.home); err != nil {
		return executableKey{}, fmt.Errorf("look for campaign.home: %w", err)
	} else if !home.IsDir() {
		return executableKey{}, fmt.Errorf("campaign.home is %s, which is not a directory", n.home)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return executableKey{}, fmt.Errorf("look for nlserver: no inode known of %s", n.executable)
	}
	return executableKey{
		device: uint64(stat.Dev), inode: stat.Ino, size: info.Size(), modified: info.ModTime(),
	}, nil
}

// explainStart adds what to do to the errors of a start that are hard to understand.
func (n *Server) explainStart(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w (the file is there: its interpreter or its loader is missing)", err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w (not a program for this machine, or a script without a first line like #!/bin/sh)", err)
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w (somebody is writing the executable)", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w (the user of this process may not run it, or the file system is mounted noexec)", err)
	}
	return err
}
