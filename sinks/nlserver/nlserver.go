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
// instance has one run with a credential at a time.
type Server struct {
	cfg       Config // with defaults, and whole paths
	offered   offered
	restarts  *restarts
	complaint atomic.Pointer[string] // the last that env_script printed and went on
}

// New prepares the runs and touches nothing: what is missing shows in the first run.
func New(config Config) *Server {
	n := &Server{cfg: config, restarts: &restarts{latest: map[string]*restart{}}}
	n.cfg.Home = filepath.Clean(n.cfg.Home)
	n.cfg.Executable = n.underHome(cmp.Or(n.cfg.Executable, "bin/nlserver"))
	if n.cfg.EnvScript != "" {
		n.cfg.EnvScript = n.underHome(n.cfg.EnvScript)
	}
	n.cfg.Command = cmp.Or(strings.TrimPrefix(n.cfg.Command, "-"), commandAuto)
	if n.cfg.Timeout <= 0 {
		n.cfg.Timeout = time.Minute
	}
	if n.cfg.Logger == nil {
		n.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return n
}

func (n *Server) underHome(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(n.cfg.Home, path)
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
		r.nlserver.forgetOption()
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
		n.cfg.Logger.Warn("the private key is not handed to nlserver, its option takes none",
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
	out := &capture{limit: captureLimit}
	end, err := (&child{
		path: n.cfg.Executable, args: r.args, dir: n.cfg.Home, env: r.env,
		inherit: r.inherit, noCore: r.secret, stdout: out, stderr: out,
	}).run(ctx, n.cfg.Timeout)
	result := Result{Took: end.took, ExitCode: end.exitCode}
	text := out.text(end.complete, r.redact)
	result.Output = excerptOf(text, summaryLength)
	n.cfg.Logger.Debug("nlserver ran", "step", step, "duration", result.Took, "exit", result.ExitCode,
		"output", excerptOf(text, excerptLength))
	switch {
	case err != nil && !end.started:
		return result, fmt.Errorf("%s: %w", step, explainStart(err))
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
	info, err := os.Stat(n.cfg.Executable)
	const remedy = "set campaign.home and campaign.nlserver to where Campaign is installed"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("nlserver is missing: no file %s (%s): %w", n.cfg.Executable, remedy, fs.ErrNotExist)
	case err != nil:
		err = fmt.Errorf("look for nlserver: %w (%s)", err, remedy)
	case info.IsDir():
		err = fmt.Errorf("nlserver cannot be run: %s is a directory (%s)", n.cfg.Executable, remedy)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("nlserver cannot be run: %s is not a regular file (%s)", n.cfg.Executable, remedy)
	case info.Mode().Perm()&0o111 == 0:
		err = fmt.Errorf("nlserver cannot be run: %s is not executable (chmod +x it, or %s): %w", n.cfg.Executable, remedy, fs.ErrPermission)
	}
	if err != nil {
		return executableKey{}, err
	}
	if home, err := os.Stat(n.cfg.Home); err != nil {
		return executableKey{}, fmt.Errorf("look for campaign.home: %w", err)
	} else if !home.IsDir() {
		return executableKey{}, fmt.Errorf("campaign.home is %s, which is not a directory", n.cfg.Home)
	}
	stat := info.Sys().(*syscall.Stat_t) // always that on Linux
	return executableKey{stat.Dev, stat.Ino, info.Size(), info.ModTime()}, nil
}

// explainStart adds what to do to the errors of a start that are hard to understand.
func explainStart(err error) error {
	for errno, why := range map[syscall.Errno]string{
		syscall.ENOENT:  "the file is there: its interpreter or its loader is missing",
		syscall.ENOEXEC: "not a program for this machine, or a script without a first line like #!/bin/sh",
		syscall.ETXTBSY: "somebody is writing the executable",
		syscall.EACCES:  "the user of this process may not run it, or the file system is mounted noexec",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w (%s)", err, why)
		}
	}
	return err
}
