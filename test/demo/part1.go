package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"

	"campaign-credsync/test/container"
)

const settings = "watch: {poll: 1s}\nlog: {format: text}\n"

// writer is another program that writes the credential's file.
type writer struct {
	*stage
	file   string
	secret string // of the last whole credential
}

// tellFile is part 1: the credential is in a file.
func tellFile(ctx context.Context, dir string, programs container.Programs, out io.Writer) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "credential.json")
	c, err := container.New(ctx, dir, container.Options{
		Instances: []string{instance}, Settings: settings, Programs: programs,
		NoVault: true, Secrets: map[string]string{instance: "source: file, file: " + file},
	})
	if err != nil {
		return err
	}
	defer c.Close()
	w := &writer{stage: &stage{c, out}, file: file}
	if err := w.write(1); err != nil {
		return err
	}
	began := time.Now()
	return w.play(ctx, "Part 1, no Vault (source: file). The daemon starts, and a JSON file holds version 1",
		func(ctx context.Context) error {
			if err := w.applied(ctx, 1, w.secret); err != nil {
				return err
			}
			w.measured("from start to applied and activated", began)
			return nil
		},
		w.rotation, w.half, w.handEdit, w.status)
}

// write renames a new credential over the file.
func (w *writer) write(version int) error {
	w.secret = "p8e-" + (rand.Text() + rand.Text())[:32]
	credential := container.Credential(w.secret)
	credential["version"] = version
	return w.replace(credential)
}

func (w *writer) replace(credential map[string]any) error {
	text, err := json.Marshal(credential)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(w.file+".new", w.file)
}

func (w *writer) rotation(ctx context.Context) error {
	w.title("Rotation: another program renames version 2 over the file")
	began := time.Now()
	if err := w.write(2); err != nil {
		return err
	}
	if err := w.applied(ctx, 2, w.secret); err != nil {
		return err
	}
	w.measured("from the rename to applied and activated", began)
	return nil
}

func (w *writer) half(ctx context.Context) error {
	w.title("Version 3 lacks the secret: the credential that works stays")
	credential := container.Credential("")
	credential["version"] = 3
	delete(credential, "client_secret")
	applied := w.secret
	if err := w.replace(credential); err != nil {
		return err
	}
	if _, err := w.Await(ctx, func(s container.Status) bool { return s.Is("blocked") }); err != nil {
		return err
	}
	if err := w.AwaitSecret(ctx, instance, applied); err != nil {
		return err
	}
	w.title("Version 4 is whole again")
	if err := w.write(4); err != nil {
		return err
	}
	return w.applied(ctx, 4, w.secret)
}

func (w *writer) handEdit(ctx context.Context) error {
	w.title("Hand edit: somebody blanks the client secret, and changes the database login")
	return w.drift(ctx, func(document []byte) []byte {
		return bytes.Replace(document, []byte(`login="`), []byte(`login="new-`), 1)
	})
}
