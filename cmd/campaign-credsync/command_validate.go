package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/config"
)

func newValidateCommand(in *invocation) *cobra.Command {
	var effective bool
	c := in.command("validate [--effective]", "Check the configuration",
		`Checks the configuration file without network, says that it is valid, and warns of what is doubtful, also of files that are
not there. All problems go to standard error, one per line, as FILE:LINE:COLUMN: KEY: PROBLEM. --effective prints the
effective configuration: every default filled in, variables replaced, the role-id masked.

Exit status: 0 if the configuration is good, 2 if not.`,
		func(ctx context.Context) (int, error) {
			c, err := in.load(ctx)
			if err != nil {
				return exitUsage, err
			}
			for _, warning := range c.Warnings {
				fmt.Fprintf(in.stderr, "warning: %s\n", warning)
			}
			if effective {
				return exitOK, c.Effective(in.stdout)
			}
			for _, problem := range absent(c) {
				fmt.Fprintf(in.stderr, "warning: %v\n", problem)
			}
			fmt.Fprintf(in.stdout, "%s is valid\n", in.configFile)
			return exitOK, nil
		})
	c.Flags().BoolVar(&effective, "effective", false, "print the effective configuration")
	return c
}

// absent tells which files of Campaign are not there, each with the place of its setting.
func absent(c *config.Config) (problems []error) {
	isThere := func(key, path, remedy string) bool {
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, c.At(key, fmt.Errorf("%s is not there; %s", path, remedy)))
		}
		return err == nil
	}
	if !isThere("campaign.home", c.Campaign.Home, "set it to where Campaign is installed") {
		return problems
	}
	nlserver := c.Campaign.Nlserver
	if !filepath.IsAbs(nlserver) {
		nlserver = filepath.Join(c.Campaign.Home, nlserver)
	}
	isThere("campaign.nlserver", nlserver, "set it to Campaign's nlserver")
	for n, i := range c.Instances {
		isThere(fmt.Sprintf("instances[%d].config_file", n), i.ConfigFile, "check the instance's name; nothing is done for it until the file is there")
	}
	return problems
}
