package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// addInstanceFlag adds --instance, which the shells complete from the configuration. A file with problems still gives its
// names: at a prompt ${CREDENTIALS_DIRECTORY} is rarely set.
func addInstanceFlag(command *cobra.Command, in *invocation, into *string) {
	command.Flags().StringVar(into, "instance", "", "only the instance called `NAME`")
	// The registration fails only for a flag that is not there.
	command.RegisterFlagCompletionFunc("instance", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, _ := readConfig(in.configFile, in.env)
		return instanceNames(c), cobra.ShellCompDirectiveNoFileComp
	})
}

func loadWithInstance(in *invocation, instance string) (*config, error) {
	c, err := in.load()
	if err != nil {
		return nil, err
	}
	if names := instanceNames(c); instance != "" && !slices.Contains(names, instance) {
		return nil, &exit{exitUsage, fmt.Errorf("--instance: the configuration has no instance %q, only %s",
			instance, strings.Join(names, ", "))}
	}
	return c, nil
}

func instanceNames(c *config) []string {
	var names []string
	for _, i := range c.Instances {
		if instanceName.MatchString(i.Name) {
			names = append(names, i.Name)
		}
	}
	return names
}
