package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"campaign-credsync/internal/credential"
)

// file is a configuration file in memory, written by a command that takes no time and encrypts at random.
type file struct {
	mu         sync.Mutex
	credential credential.Credential
	attributes credential.Attributes
	writes     int
}

func (f *file) holds() credential.Credential {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.credential
}

func (f *file) Recover(context.Context) error { return nil }

func (f *file) Look(context.Context) (credential.Attributes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attributes, nil
}

func (f *file) Apply(_ context.Context, c credential.Credential, _ credential.Attributes) (credential.Attributes, time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	f.credential = c
	f.attributes = credential.Attributes{
		{Name: "authIMSTAClientId", Value: c.ClientID},
		{Name: "authIMSTAClientSecret", Value: fmt.Sprintf("@cipher%d", f.writes)},
		{Name: "authIMSTAId", Value: c.TechnicalAccountID},
	}
	return f.attributes, 0, nil
}

// Restore has nothing to do, as nobody else writes.
func (f *file) Restore(ctx context.Context, _ credential.Attributes) (credential.Attributes, error) {
	return f.Look(ctx)
}

func (*file) ChangedAt() time.Time { return time.Time{} }

// nothing is to be told of a new credential.
type nothing struct{}

func (nothing) Activate(context.Context, credential.Step, time.Time) (credential.Proof, error) {
	return credential.Proof{}, nil
}

func (nothing) Prove(string, []string) credential.Proof { return credential.Proof{} }

func (*file) Owner() string { return "" }

func (*file) Managed(credential.Attributes) (credential.Attributes, bool) { return nil, false }

func (*file) WrongIDs(credential.Credential, credential.Attributes) []string { return nil }
