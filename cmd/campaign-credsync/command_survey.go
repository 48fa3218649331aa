package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/logging"
)

func newSurveyCommand(in *invocation) *cobra.Command {
	var isTest, asJSON bool
	c := in.command("survey --instance NAME --yes-this-is-a-test-instance [--json]", "Find out how nlserver behaves, on a test instance",
		`Runs nlserver on a TEST instance: lists its options, sets a credential that was made up (wrongly twice, rightly twice),
reloads, and restarts the modules of campaign.activate.restart. It reports how nlserver writes, what it prints and how it
ends, compared with what the tests of this program assume.

The instance's file is saved before each run, and afterwards it is as before, byte for byte, also after ^C. If the survey is
killed, the next survey, sync or run puts it back. The daemon must not run. The report has no value of a credential.

Exit status: 0 if nlserver behaves as assumed, 3 if it differs, 1 if it could not be found out or the file is not as
before, 2 if the command line is wrong or the configuration is bad.`,
		func(ctx context.Context) (int, error) {
			switch {
			case in.instance == "":
				return exitUsage, errors.New("--instance: name a test instance")
			case !isTest:
				return exitUsage, errors.New("--yes-this-is-a-test-instance is missing: the credential in the instance's file is replaced for some seconds, and modules are restarted")
			}
			// Nothing but SIGKILL ends it before the file is as before: not a terminal that is closed, a reader of its output that has
			// ended, or a second signal.
			ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			return in.runSurvey(ctx, asJSON)
		})
	in.addInstanceFlag(c)
	c.Flags().BoolVar(&isTest, "yes-this-is-a-test-instance", false, "needed, as nothing of this belongs on an instance that matters")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, not Markdown")
	return c
}

func (in *invocation) runSurvey(ctx context.Context, asJSON bool) (int, error) {
	c, err := in.load(ctx)
	if err != nil {
		return exitUsage, err
	}
	log, closeLog := logging.New(c.Log, in.stderr, in.env, new(slog.LevelVar))
	defer closeLog()
	report, err := assembly.Survey(ctx, c, log, version)
	if report.Comparison != nil {
		if asJSON {
			encoder := json.NewEncoder(in.stdout)
			encoder.SetIndent("", "  ")
			encoder.Encode(report)
		} else {
			report.Markdown(in.stdout)
		}
	}
	switch {
	case err != nil:
		return exitFailed, err
	case !report.AsAssumed:
		return exitDiffers, nil
	}
	return exitOK, nil
}
