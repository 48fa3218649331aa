package vault

import (
	"context"
	"crypto/sha256"
	"time"

	"campaign-credsync/internal/filewatch"
)

// quiet is how long a watched file must be left alone before it is read: half a secret-id is a wrong one, and wrong ones
// are counted.
const quiet = 100 * time.Millisecond

// watchedFile is a file that a login reads, and the sum of what it held when it was looked at last.
type watchedFile struct {
	path string
	seen [sha256.Size]byte
}

// Run watches what the login reads (the secret-id, token, JWT or certificate) and calls changed when another one is there
// than at New or at the last call, so that the next poll can be brought forward. It returns when ctx is done and everything it
// started has ended. A call waits for the end of the one before, which may take long on a disk that does not answer. Nothing
// depends on it, as each login reads the file anyway.
func (v *Vault) Run(ctx context.Context, changed func()) {
	select {
	case v.watching <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-v.watching }()
	var files []filewatch.File
	for _, w := range v.watched {
		files = append(files, filewatch.File{Path: w.path, Quiet: quiet, Changed: func(bool) {
			now := sumOf(w.path)
			if now == w.seen {
				return
			}
			if w.seen = now; now != ([sha256.Size]byte{}) {
				v.session.method.Retry(false)
				changed()
			}
		}})
	}
	filewatch.Watch(ctx, files, v.logger)
}
