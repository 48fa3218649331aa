package assembly

import (
	"context"
	stdsync "sync"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/filewatch"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sources/vault"
	"campaign-credsync/sources/vault/push"
)

// watch brings forward, until ctx ends, the look at an instance's file that may have changed, and polls: of a secret when its file has
// another content or Vault tells of a new version, of all when there is another way to log in to Vault.
func (a *assembly) watch(ctx context.Context) {
	var files []filewatch.File
	secretFiles, kvs := map[*jsonfile.File]func(){}, map[*vault.KV]func(){}
	for n, in := range a.settings.Instances {
		files = append(files, filewatch.File{
			Path: a.config.Instances[n].ConfigFile, Changed: func(lost bool) { a.daemon.Touched(n, lost) },
		})
		announced := func() { a.daemon.Announced(n) } // any of the instances that share the source
		switch source := in.Source.(type) {
		case *jsonfile.File:
			secretFiles[source] = announced
		case *vault.KV:
			kvs[source] = announced
		}
	}
	var group stdsync.WaitGroup
	group.Go(func() { filewatch.Watch(ctx, files, a.log) })
	group.Go(func() { jsonfile.Watch(ctx, secretFiles, a.log) })
	if a.vault != nil {
		group.Go(func() { a.vault.Run(ctx, a.daemon.CheckSoon) })
	}
	if a.vault != nil && a.config.Watch.Events != config.EventsOff {
		group.Go(func() { push.Subscribe(ctx, a.vault.PushConfig(a.config.Watch.Poll, kvs)) })
	}
	group.Wait()
}
