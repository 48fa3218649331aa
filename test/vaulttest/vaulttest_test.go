package vaulttest_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"campaign-credsync/test/vaulttest"
)

func TestMain(m *testing.M) {
	if os.Getenv("VAULTTEST_STARTER") != "" {
		starter()
	}
	if len(os.Args) > 1 && os.Args[1] == "server" {
		if err := developmentServer(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(vaulttest.Sharing{M: m})
}

// starter is this test binary run as the program that is killed below.
func starter() {
	server, err := vaulttest.Launch(context.Background(), os.Stderr)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(server.Address + "\n")
	select {}
}

func get(t *testing.T, address string) (status int, err error) {
	t.Helper()
	return getWithin(t, time.Minute, address)
}

func getWithin(t *testing.T, limit time.Duration, address string) (status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/sys/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// A test that is killed must not leave a Vault of 100 MB behind.
func TestVaultEndsWithItsStarter(t *testing.T) {
	if os.Getenv("VAULT_ADDR") != "" {
		t.Skip("an external Vault stays")
	}
	vaulttest.Start(t) // so that it is built
	starter := exec.Command(os.Args[0])
	starter.Env = append(os.Environ(), "VAULTTEST_STARTER=1")
	stdout, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(string(line[:n]))
	if status, err := get(t, address); err != nil || status != http.StatusOK {
		t.Fatalf("before the kill: %d, %v", status, err)
	}
	starter.Process.Kill()
	starter.Wait()
	for {
		if _, err := get(t, address); errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestProxy(t *testing.T) {
	server := vaulttest.Start(t)
	proxy := server.Proxy(t)
	if status, err := get(t, proxy.Address); err != nil || status != http.StatusOK {
		t.Fatalf("forwarding: %d, %v", status, err)
	}
	if requests := proxy.Requests(); len(requests) != 1 || requests[0].Path != "/v1/sys/health" {
		t.Errorf("recorded %+v", requests)
	}
	proxy.Down()
	if _, err := get(t, proxy.Address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("down: %v", err)
	}
	if err := proxy.Up(); err != nil {
		t.Fatal(err)
	}
	proxy.Answer("/health", 429, "slow down")
	if status, err := get(t, proxy.Address); err != nil || status != 429 {
		t.Errorf("answering: %d, %v", status, err)
	}
	proxy.Forward()
	letGo := proxy.Hang()
	if _, err := getWithin(t, time.Second, proxy.Address); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: %v", err)
	}
	letGo()
	if status, err := get(t, proxy.Address); err != nil || status != http.StatusOK {
		t.Errorf("let go: %d, %v", status, err)
	}
}

func TestSealAndUnseal(t *testing.T) {
	server := vaulttest.Start(t)
	server.MustWrite("a/b", map[string]any{"k": "v"})
	server.MustSeal()
	if _, err := server.Write(t.Context(), "a/b", map[string]any{"k": "v"}); err == nil {
		t.Error("a sealed Vault takes a secret")
	}
	server.MustUnseal()
	if version := server.MustWrite("a/b", map[string]any{"k": "w"}); version != 2 {
		t.Errorf("version %d after unsealing, want 2: the storage is gone", version)
	}
}

// What was made in somebody else's Vault goes with the server. Played with a Vault of our own as the external one.
func TestExternalVaultIsLeftClean(t *testing.T) {
	own := vaulttest.Start(t)
	t.Setenv("VAULT_ADDR", own.Address)
	t.Setenv("VAULT_TOKEN", own.Token)
	var progress bytes.Buffer
	server, err := vaulttest.Launch(t.Context(), &progress)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.Role(t.Context(), server.ReadPolicy("a/b"), 0); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	for path, trace := range map[string]string{"sys/mounts": server.Mount, "sys/auth": server.AuthMount, "sys/policies/acl?list=true": strings.TrimPrefix(server.Mount, "kv-")} {
		var answer struct{ Data map[string]any }
		if err := own.Call(t.Context(), http.MethodGet, path, nil, &answer); err != nil {
			t.Fatal(err)
		}
		for name, value := range answer.Data {
			if keys, ok := value.([]any); ok {
				for _, key := range keys {
					name += " " + key.(string)
				}
			}
			if strings.Contains(name, trace) {
				t.Errorf("%s still has %s", path, name)
			}
		}
	}
}

// An installed vault or bao serves as one that was built; nothing of it stays.
func TestDevelopmentServer(t *testing.T) {
	t.Parallel()
	vaulttest.Start(t) // so that it is built
	programs := []string{os.Args[0]}
	for _, name := range []string{"vault", "bao"} {
		if program, err := exec.LookPath(name); err == nil {
			programs = append(programs, program)
		}
	}
	for _, program := range programs {
		t.Run(filepath.Base(program), func(t *testing.T) { servesAsBuilt(t, program) })
	}
}

// developmentServer is this test binary run as vault: the Vault that was built, with the address and the root token that it is told.
func developmentServer(args []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.Bool("dev", false, "")
	flags.Bool("dev-no-store-token", false, "")
	address := flags.String("dev-listen-address", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server, err := vaulttest.LaunchBuilt(ctx, os.Stderr)
	if err != nil {
		return err
	}
	defer server.Close()
	root := map[string]any{"id": os.Getenv("VAULT_DEV_ROOT_TOKEN_ID"), "policies": []string{"root"}}
	if err := server.Call(ctx, http.MethodPost, "auth/token/create", root, nil); err != nil {
		return err
	}
	target, err := url.Parse(server.Address)
	if err != nil {
		return err
	}
	front := &http.Server{Addr: *address, Handler: httputil.NewSingleHostReverseProxy(target)}
	go func() { <-ctx.Done(); front.Close() }()
	if err := front.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func servesAsBuilt(t *testing.T, program string) {
	s, err := vaulttest.LaunchDev(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	version, err := s.Write(t.Context(), "campaign/prod/oauth", map[string]any{"client_secret": "x"})
	if err != nil || version != 1 {
		t.Errorf("write: version %d, %v", version, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Call(t.Context(), http.MethodGet, "sys/health", nil, nil); err == nil {
		t.Error("it runs on after Close")
	}
}
