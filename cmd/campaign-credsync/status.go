package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"campaign-credsync/sync"
)

// statusDocument is what status --json prints and the control socket answers. Times are RFC 3339 in UTC; null means
// never, or not known. Versions are 0 where there is none.
type statusDocument struct {
	Instances []instanceDocument `json:"instances"`
	Vault     vaultDocument      `json:"vault"`
}

type instanceDocument struct {
	Name           string     `json:"name"`
	State          sync.State `json:"state"`
	WantedVersion  int        `json:"wanted_version"`
	AppliedVersion int        `json:"applied_version"`
	AppliedAt      *time.Time `json:"applied_at"`
	ActivatedAt    *time.Time `json:"activated_at"`
	LastCheck      *time.Time `json:"last_check"`
	RevertedTotal  int        `json:"drift_reverted_total"`
	LastError      string     `json:"last_error"`
}

type vaultDocument struct {
	Reachable    bool       `json:"reachable"`
	TokenExpires *time.Time `json:"token_expires_at"`
	LastPoll     *time.Time `json:"last_poll"`
}

// document tells of Vault what the instances saw whose credential is there. Where there is none, nothing is out of reach.
func document(s sync.Status, inVault map[string]bool) statusDocument {
	d := statusDocument{Instances: []instanceDocument{}, Vault: vaultDocument{Reachable: true}}
	var lastPoll time.Time
	for _, in := range s.Instances {
		d.Instances = append(d.Instances, instanceDocument{
			Name: in.Name, State: in.State,
			WantedVersion: in.WantedVersion, AppliedVersion: in.AppliedVersion,
			AppliedAt: known(in.AppliedAt), ActivatedAt: known(in.ActivatedAt), LastCheck: known(in.LastCheck),
			RevertedTotal: in.RevertedTotal, LastError: in.LastError,
		})
		if !inVault[in.Name] {
			continue
		}
		d.Vault.Reachable = d.Vault.Reachable && in.SourceReached
		if in.LastPoll.After(lastPoll) {
			lastPoll = in.LastPoll
		}
	}
	d.Vault.LastPoll = known(lastPoll)
	return d
}

// used reports whether any instance has its credential in Vault: one that was never polled is not reachable.
func (v vaultDocument) used() bool { return !v.Reachable || v.LastPoll != nil }

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}

func (d statusDocument) inSync() bool {
	for _, in := range d.Instances {
		if in.State != sync.StateInSync {
			return false
		}
	}
	return true
}

// watchEvery is how often status --watch asks.
const watchEvery = 500 * time.Millisecond

func runStatus(ctx context.Context, in *invocation, options statusOptions) error {
	d, err := askStatus(ctx, options.socket)
	if err != nil {
		return err
	}
	show(in.stdout, d, options.json)
	shown := shape(d)
	for options.watch {
		select {
		case <-ctx.Done():
			return nil // the watcher has seen enough
		case <-time.After(watchEvery):
		}
		if d, err = askStatus(ctx, options.socket); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if now := shape(d); now != shown {
			shown = now
			if !options.json {
				fmt.Fprintln(in.stdout)
			}
			show(in.stdout, d, options.json)
		}
	}
	if !d.inSync() {
		return &exit{status: exitDiffers}
	}
	return nil
}

// shape is what is worth printing again when it changes: all but the times that change with every check.
func shape(d statusDocument) string {
	var b strings.Builder
	for _, in := range d.Instances {
		in.LastCheck = nil
		json.NewEncoder(&b).Encode(in)
	}
	fmt.Fprint(&b, d.Vault.Reachable)
	return b.String()
}

func show(w io.Writer, d statusDocument, asJSON bool) {
	if asJSON {
		json.NewEncoder(w).Encode(d)
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tSTATE\tWANTED\tAPPLIED\tAPPLIED AT\tACTIVATED AT\tLAST CHECK\tREVERTED")
	for _, in := range d.Instances {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", in.Name, in.State, number(in.WantedVersion), number(in.AppliedVersion),
			moment(in.AppliedAt), moment(in.ActivatedAt), moment(in.LastCheck), in.RevertedTotal)
	}
	table.Flush()
	reachable := "out of reach"
	if d.Vault.Reachable {
		reachable = "reachable"
	}
	if d.Vault.used() {
		fmt.Fprintf(w, "vault: %s, last poll %s, token until %s\n", reachable, moment(d.Vault.LastPoll), moment(d.Vault.TokenExpires))
	} else {
		fmt.Fprintln(w, "vault: not used")
	}
	for _, in := range d.Instances {
		if in.LastError != "" {
			fmt.Fprintf(w, "%s: %s\n", in.Name, in.LastError)
		}
	}
}

func number(version int) string {
	if version == 0 {
		return "-"
	}
	return fmt.Sprint(version)
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}
