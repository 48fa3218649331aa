package vaulttest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// MountKV mounts another KV engine, of version 1 or 2, below prefix and under a name of this server's own. It
// returns the whole name, which may have slashes.
func (s *Server) MountKV(ctx context.Context, prefix string, version int) (mount string, err error) {
	mount = prefix + "/" + s.Mount
	body := map[string]any{"type": "kv", "options": map[string]string{"version": strconv.Itoa(version)}}
	if err := s.Call(ctx, http.MethodPost, "sys/mounts/"+mount, body, nil); err != nil {
		return "", err
	}
	s.mu.Lock()
	s.mounts = append(s.mounts, mount)
	s.mu.Unlock()
	for version == 2 { // it answers 400 until its upgrade, made in the background, is through
		if err := s.Call(ctx, http.MethodGet, mount+"/config", nil, nil); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return mount, nil
}

// MustMountKV is MountKV that ends the test when it fails, as are those below.
func (s *Server) MustMountKV(prefix string, version int) (mount string) {
	mount, err := s.MountKV(s.ctx(), prefix, version)
	s.must(err)
	return mount
}

// MustWriteAt writes a secret of any engine by its whole path, such as mount/path with version 1 and mount/data/path with
// version 2.
func (s *Server) MustWriteAt(path string, data map[string]any) {
	s.must(s.Call(s.ctx(), http.MethodPost, path, data, nil))
}

// MustDeleteAt deletes what is at a whole path.
func (s *Server) MustDeleteAt(path string) {
	s.must(s.Call(s.ctx(), http.MethodDelete, path, nil, nil))
}

// ReadPolicyAt is a policy that allows to read whole paths and nothing else.
func ReadPolicyAt(paths ...string) (policy string) {
	for _, path := range paths {
		policy += fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", path)
	}
	return policy
}
