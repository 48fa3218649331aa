package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/logging"
)

// run is the whole program but for the process around it; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, env func(string) (string, bool)) int {
	in := &invocation{env: env, stdout: stdout, stderr: stderr}
	root := newRootCommand(in)
	root.SetArgs(append([]string{}, args...)) // cobra takes os.Args in place of nil
	root.SetOut(stdout)
	root.SetErr(stderr)
	completes(root, stdout) // takes the output that is set
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		plainUsage(root)
	}
	if command, err := root.ExecuteContextC(ctx); err != nil { // the command line is wrong
		sayError(stderr, env, fmt.Sprintf("%s: %v\nTry '%s --help'.", root.Name(), err, command.CommandPath()))
		return exitUsage
	}
	if bad, ok := errors.AsType[config.Error](in.err); ok {
		sayError(stderr, env, bad.Error()) // file:line:column has to stand first, where editors look for it
	} else if in.err != nil {
		sayError(stderr, env, fmt.Sprintf("%s: %v", root.Name(), in.err))
	}
	return in.status
}

// sayError tells why the program ends. The journal takes it for an error, line by line.
func sayError(stderr io.Writer, env func(string) (string, bool), text string) {
	if logging.IsJournal(stderr, env) {
		text = "<3>" + strings.ReplaceAll(text, "\n", "\n<3>")
	}
	fmt.Fprintln(stderr, text)
}

// Exit statuses. What a status means in detail stands in each command's help.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2 // a wrong command line or a bad configuration
	exitDiffers = 3 // not in sync: drift, or a version that waits

	exitMayNotAsk = 4 // a daemon is there, and this user may not ask it
)

// invocation is what every command knows of its surroundings, and how it ended.
type invocation struct {
	configFile     string // as the user gave it
	instance       string // of --instance; empty: all
	env            func(string) (string, bool)
	stdout, stderr io.Writer

	status int // what the command ended with
	err    error
}

func newRootCommand(in *invocation) *cobra.Command {
	root := &cobra.Command{
		Use:   "campaign-credsync [--config FILE] COMMAND",
		Short: "Keep Adobe Campaign's OAuth credential equal to a secret in Vault",
		Long: `Keeps the OAuth Server-to-Server credential of Adobe Campaign Classic v7 instances equal to a secret in Vault:
applies each new version through nlserver, and puts the credential back when anything else changes it.`,
		Version:               versionLine(),
		SilenceUsage:          true,
		SilenceErrors:         true,
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a command is missing")
		},
	}
	root.PersistentFlags().StringVar(&in.configFile, "config", config.DefaultFile, "configuration `FILE`")
	root.MarkPersistentFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	root.AddCommand(
		newRunCommand(in), newSyncCommand(in), newValidateCommand(in), newDiffCommand(in), newStatusCommand(in),
		newAdoptCommand(in), newPauseCommand(in), newResumeCommand(in), newHistoryCommand(in), newSurveyCommand(in), newDoctorCommand(in),
		newVersionCommand(in), newActivateCommand(in),
	)
	return root
}

// command makes a command without arguments. do returns the exit status of the program, and the error to be printed, if any.
func (in *invocation) command(use, short, long string, do func(context.Context) (int, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,
		DisableFlagsInUseLine: true,
		Args:                  cobra.NoArgs,
		Run:                   func(c *cobra.Command, _ []string) { in.status, in.err = do(c.Context()) },
	}
}

// loadTimeout bounds the reading of the configuration.
const loadTimeout = 4 * time.Second

// load reads the configuration. An error means exitUsage; the Config beside it is that of config.Load. The daemon calls it again on
// SIGHUP.
func (in *invocation) load(ctx context.Context) (*config.Config, error) {
	c, err := deadline.Run(ctx, loadTimeout, in.configFile+": reading it", deadline.Disk, func() (*config.Config, error) {
		return config.Load(in.configFile, in.env)
	})
	if err != nil || in.instance == "" {
		return c, err
	}
	c.Instances = slices.DeleteFunc(c.Instances, func(i config.Instance) bool { return i.Name != in.instance })
	if len(c.Instances) == 0 {
		return nil, fmt.Errorf("--instance: the configuration has no instance %q", in.instance)
	}
	return c, nil
}

// loadForDaemon is load for commands that only ask the daemon. Who may ask it need not be able to read its configuration: beside that
// error is a Config with the default socket.
func (in *invocation) loadForDaemon(ctx context.Context) (*config.Config, error) {
	c, err := in.load(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return &config.Config{ControlSocket: config.DefaultSocket}, err
	}
	return c, err
}

// addInstanceFlag adds --instance, which load heeds.
func (in *invocation) addInstanceFlag(command *cobra.Command) {
	command.Flags().StringVar(&in.instance, "instance", "", "only the instance called `NAME`")
}
