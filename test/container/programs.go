package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Programs are executables. Build makes them.
type Programs struct {
	Daemon   string // what Start starts
	Command  string // what Command runs
	NLServer string // the stand-in
}

// Build builds the daemon and the stand-in below dir; the compiler's cache makes the second time quick. With race, the
// daemon reports races, and Command is a second build, without the detector, that starts quickly. CREDSYNC_BINARY names
// a daemon to be used in place of the one without the detector.
func Build(ctx context.Context, dir string, race bool) (Programs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, err
	}
	const daemon = "cmd/campaign-credsync"
	p := Programs{Command: filepath.Join(dir, "campaign-credsync"), NLServer: filepath.Join(dir, "nlserver-standin")}
	plain := []string{"-trimpath", "-ldflags", "-s -w"}
	if built := os.Getenv("CREDSYNC_BINARY"); built != "" {
		p.Command = built
	} else if err := goBuild(ctx, p.Command, daemon, "0", plain...); err != nil {
		return Programs{}, err
	}
	if err := goBuild(ctx, p.NLServer, "test/nlserver", "0", plain...); err != nil {
		return Programs{}, err
	}
	p.Daemon = p.Command
	if race {
		p.Daemon = filepath.Join(dir, "campaign-credsync-race")
		return p, goBuild(ctx, p.Daemon, daemon, "1", "-race")
	}
	return p, nil
}

func goBuild(ctx context.Context, binary, source, cgo string, flags ...string) error {
	build := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", binary, "./"+source)...)
	build.Dir = repository()
	build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", source, err, out)
	}
	return nil
}

func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
