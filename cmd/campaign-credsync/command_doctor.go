package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"campaign-credsync/internal/assembly"
	"campaign-credsync/internal/doctor"
	"campaign-credsync/internal/logging"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sources/vault"
)

// doctorTime is how long the checks may take, from the start of the command. What they began may end within 3 s more.
const doctorTime = 6 * time.Second

func newDoctorCommand(in *invocation) *cobra.Command {
	var asJSON bool
	c := in.command("doctor [--json]", "Check what the daemon depends on",
		`Looks at Vault, Campaign, the files and this machine, and says what is wrong and which command mends it. It changes nothing, and
takes at most 10 s. What the running daemon knows it is asked; where there is none, doctor logs in to Vault itself, and not with a
secret-id that was refused, or is wrapped, and notes in state_dir only that it failed. What this user may not see is said;
root sees all but nlserver, which is run as its own user only.

Exit status: the first that holds: 2 if the configuration is bad, 1 if there are errors, 4 if this user may not ask the
daemon, 3 if there are warnings, else 0.`,
		func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, doctorTime)
			defer cancel()
			c, problem := in.load(ctx)
			mayNotRead := errors.Is(problem, fs.ErrPermission)
			if mayNotRead {
				c, _ = in.loadForDaemon(ctx)
			} else if problem != nil {
				return exitUsage, problem
			}
			log := slog.New(slog.DiscardHandler) // what it would say is in the findings
			found := doctor.Run(ctx, doctor.Config{
				Config: c, NoConfig: mayNotRead,
				Examine: func(ctx context.Context) (vault.Examination, error) { return assembly.Examine(ctx, c, log) },
				Inspect: func(ctx context.Context) (nlserver.Inspection, error) { return assembly.InspectNLServer(ctx, c, log) },
			})
			if asJSON {
				json.NewEncoder(in.stdout).Encode(struct {
					Findings []doctor.Finding `json:"findings"`
				}{found})
			} else {
				in.showFindings(in.stdout, found)
			}
			return exitOfFindings(found), nil
		})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func exitOfFindings(found []doctor.Finding) int {
	counts := countLevels(found)
	switch {
	case counts[doctor.Error] > 0:
		return exitFailed
	case doctor.MayNotAsk(found):
		return exitMayNotAsk
	case counts[doctor.Warning] > 0:
		return exitDiffers
	}
	return exitOK
}

func countLevels(found []doctor.Finding) map[doctor.Level]int {
	counts := map[doctor.Level]int{}
	for _, f := range found {
		counts[f.Level]++
	}
	return counts
}

// levelWidth is that of the column of levels.
const levelWidth = len("warning") + 2

// showFindings prints findings for people, the worst first, each with what mends it.
func (in *invocation) showFindings(w io.Writer, found []doctor.Finding) {
	noColor, _ := in.env("NO_COLOR")
	coloured := noColor == "" && logging.IsTerminal(in.stdout)
	counts, summary := countLevels(found), []string{}
	for _, level := range doctor.Levels {
		for _, f := range found {
			if f.Level != level {
				continue
			}
			subject := f.Check
			if f.Instance != "" {
				subject += " of " + f.Instance
			}
			head := fmt.Sprintf("%-*s", levelWidth, level)
			if coloured {
				head = levelColour[level] + head + "\x1b[0m"
			}
			var text strings.Builder
			say(&text, strings.Repeat(" ", levelWidth), "%s: %s", subject, f.Found)
			fmt.Fprint(w, head, text.String()[levelWidth:])
			if f.Remedy != "" {
				say(w, strings.Repeat(" ", levelWidth+2), "-> %s", f.Remedy)
			}
		}
		switch n := counts[level]; {
		case n == 1 || n > 0 && (level == doctor.OK || level == doctor.Unseen):
			summary = append(summary, fmt.Sprintf("%d %s", n, level))
		case n > 0:
			summary = append(summary, fmt.Sprintf("%d %ss", n, level))
		}
	}
	fmt.Fprintln(w, strings.Join(summary, ", "))
}

var levelColour = map[doctor.Level]string{doctor.OK: "\x1b[32m", doctor.Warning: "\x1b[33m", doctor.Error: "\x1b[31m"}
