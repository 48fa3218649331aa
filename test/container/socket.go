package container

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
)

// Asker speaks to the control socket directly, without a process for each question, for measurements.
type Asker struct{ client *http.Client }

// Asker returns an Asker of the container's daemon.
func (c *Container) Asker() Asker {
	return Asker{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.socket())
		},
		DisableKeepAlives: true,
	}}}
}

// Status asks for the status.
func (a Asker) Status(ctx context.Context) (Status, error) {
	return a.ask(ctx, http.MethodGet, "/status")
}

// Sync asks for a pass and waits for its end.
func (a Asker) Sync(ctx context.Context) (Status, error) {
	return a.ask(ctx, http.MethodPost, "/sync")
}

func (a Asker) ask(ctx context.Context, method, path string) (s Status, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, nil)
	if err != nil {
		return s, err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return s, fmt.Errorf("the daemon answers %s", response.Status)
	}
	return s, json.NewDecoder(response.Body).Decode(&s)
}

// Daemon is the path of the daemon's executable.
func (c *Container) Daemon() string { return c.daemon }
