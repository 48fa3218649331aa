package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/logging"
)

// loadTimeout bounds the reading of the configuration.
const loadTimeout = 4 * time.Second

// invocation is what every command knows of its surroundings.
type invocation struct {
	configFile     string // as the user gave it
	env            func(string) (string, bool)
	stdout, stderr io.Writer
}

// load reads the configuration. Its error ends the command with status 2. The daemon calls it again on SIGHUP.
func (in *invocation) load(ctx context.Context) (*config.Config, error) {
	c, err := in.loadPart(ctx)
	if err != nil {
		return nil, &exit{exitUsage, err}
	}
	return c, nil
}

// loadPart is load for those who can do with what could be read; see config.Load.
func (in *invocation) loadPart(ctx context.Context) (*config.Config, error) {
	return deadline.Run(ctx, loadTimeout, in.configFile+": reading it", func() (*config.Config, error) {
		return config.Load(in.configFile, in.env)
	})
}

// loadWithInstance is load for a command with --instance: what it names, where it is not empty, is the only instance left.
func (in *invocation) loadWithInstance(ctx context.Context, instance string) (*config.Config, error) {
	c, err := in.load(ctx)
	if err != nil {
		return nil, err
	}
	if names := c.InstanceNames(); instance != "" && !slices.Contains(names, instance) {
		return nil, &exit{exitUsage, fmt.Errorf("--instance: the configuration has no instance %q, only %s",
			instance, strings.Join(names, ", "))}
	}
	c.Instances = slices.DeleteFunc(c.Instances, func(i config.Instance) bool { return instance != "" && i.Name != instance })
	return c, nil
}

// addInstanceFlag adds --instance, which the shells complete from the configuration. A file with problems still gives its names: at
// a prompt ${CREDENTIALS_DIRECTORY} is rarely set.
func (in *invocation) addInstanceFlag(command *cobra.Command, instance *string) {
	command.Flags().StringVar(instance, "instance", "", "only the instance called `NAME`")
	// The registration fails only for a flag that is not there.
	command.RegisterFlagCompletionFunc("instance", func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		part, _ := in.loadPart(c.Context())
		if part == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return part.InstanceNames(), cobra.ShellCompDirectiveNoFileComp
	})
}

// logger writes to standard error as the configuration wants it.
func (in *invocation) logger(c *config.Config) *slog.Logger {
	return logging.New(c.Log, in.stderr, in.env, new(slog.LevelVar))
}
