package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
)

// run is the whole program but for the process around it; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, env func(string) (string, bool)) int {
	in := &invocation{env: env, stdout: stdout, stderr: stderr}
	root := newRootCommand(in)
	root.SetArgs(append([]string{}, args...)) // cobra takes os.Args in place of nil
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var e *exit
	if !errors.As(err, &e) { // cobra's own: the command line is wrong
		fmt.Fprintf(stderr, "%s: %v\nTry '%s --help'.\n", root.Name(), err, command.CommandPath())
		return exitUsage
	}
	if bad, ok := errors.AsType[config.Error](e.err); ok {
		fmt.Fprintln(stderr, bad) // file:line:column has to stand first, where editors look for it
	} else if e.err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", root.Name(), e.err)
	}
	return e.status
}

// Exit statuses. What a status means in detail stands in each command's help.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2 // a wrong command line or a bad configuration
	exitDiffers = 3 // not in sync: drift, or a version that waits
)

// exit is an error that knows its status. An err of nil has nothing more to say: the status is the answer.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

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
		newVersionCommand(in),
	)
	return root
}

// command is a command without arguments. An error of run that is no *exit ends it with status 1.
func command(use, short, long string, run func(context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,
		DisableFlagsInUseLine: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s takes no arguments, and there is %q", c.Name(), args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return failed(run(c.Context())) },
	}
}

// failed gives what a command's work returned a status: that of an *exit, else 1.
func failed(err error) error {
	var e *exit
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &exit{exitFailed, err}
}
