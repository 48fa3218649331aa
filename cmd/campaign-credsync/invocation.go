package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
)

// loadTimeout bounds the reading of the configuration.
const loadTimeout = 4 * time.Second

// invocation is what every command knows of its surroundings, and how it ended.
type invocation struct {
	configFile     string // as the user gave it
	instance       string // of --instance; empty: all
	env            func(string) (string, bool)
	stdout, stderr io.Writer

	status int // what the command ended with
	err    error
}

// load reads the configuration. An error means exitUsage; the Config beside it is that of config.Load. The daemon calls it again on
// SIGHUP.
func (in *invocation) load(ctx context.Context) (*config.Config, error) {
	c, err := deadline.Run(ctx, loadTimeout, in.configFile+": reading it", func() (*config.Config, error) {
		return config.Load(in.configFile, in.env)
	})
	if err != nil {
		return c, err
	}
	if in.instance == "" {
		return c, nil
	}
	c.Instances = slices.DeleteFunc(c.Instances, func(i config.Instance) bool { return i.Name != in.instance })
	if len(c.Instances) == 0 {
		return nil, fmt.Errorf("--instance: the configuration has no instance %q", in.instance)
	}
	return c, nil
}

// addInstanceFlag adds --instance, which load heeds.
func (in *invocation) addInstanceFlag(command *cobra.Command) {
	command.Flags().StringVar(&in.instance, "instance", "", "only the instance called `NAME`")
}
