package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/deadline"
	"campaign-credsync/internal/filelock"
	"campaign-credsync/internal/survey"
	"campaign-credsync/sinks"
	"campaign-credsync/sinks/nlserver"
	"campaign-credsync/sync/state"
)

// Survey surveys nlserver by the only instance of c, where no daemon guards it: it takes the locks of one. It needs no source.
func Survey(ctx context.Context, c *config.Config, log *slog.Logger, version string) (survey.Report, error) {
	i := c.Instances[0]
	a, err := deadline.Run(ctx, startTimeout, "the start", deadline.Disk, func() (*assembly, error) {
		if err := checkUser(c); err != nil {
			return nil, err
		}
		store, err := state.Open(c.StateDir, 0)
		if err != nil {
			return nil, err
		}
		a := &assembly{
			config: c, log: log, store: store,
			sinks:  map[sinks.Config]*sinks.Instance{},
			owners: map[filelock.ID]int{}, locks: map[filelock.ID]*filelock.Lock{},
		}
		a.useNLServer(&assembly{})
		if err := a.identifyFiles(); err != nil {
			store.Close()
			return nil, err
		}
		return a, nil
	})
	if err != nil {
		return survey.Report{}, whileDaemon(err)
	}
	defer a.store.Close()
	if err := a.lockFiles(&assembly{}); err != nil {
		return survey.Report{}, whileDaemon(err)
	}
	defer a.unlockFiles(&assembly{})
	defer a.settle()
	return survey.Run(ctx, survey.Config{
		Instance: i.Name, File: i.ConfigFile, Home: c.Campaign.Home, Sink: a.sink(i, &assembly{}), NLServer: a.nlserver,
		Restarts: nlserver.Steps(false, c.Campaign.Activate.Restart, i.Name),
		Timeout:  c.Campaign.Timeout, Version: version, Logger: log,
	})
}

// whileDaemon adds what to do where a daemon has the instance.
func whileDaemon(err error) error {
	if errors.Is(err, state.ErrLocked) || errors.Is(err, filelock.ErrLocked) {
		return fmt.Errorf("%w; no survey while a daemon guards the instance: systemctl stop campaign-credsync", err)
	}
	return err
}
