// Command vaultcli is the part of Vault's command line that the documents use, so that their commands can be run where there is no vault or
// bao to install: the tests' Vault is a server only. It takes arguments as vault does, and asks the Vault at VAULT_ADDR with VAULT_TOKEN.
// What it does not know it refuses.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vaultcli:", err)
		os.Exit(2)
	}
}

// run carries out one command.
func run(args []string, in io.Reader, out io.Writer) error {
	name, args := commandOf(args)
	flags, args, err := split(args)
	if err != nil {
		return err
	}
	c := command{flags: flags, in: in, out: out}
	need := func(n int) error {
		if len(args) < n {
			return fmt.Errorf("%s: arguments are missing", name)
		}
		return nil
	}
	switch name {
	case "read", "list", "delete":
		if err := need(1); err != nil {
			return err
		}
		return c.ask(map[string]string{"read": http.MethodGet, "list": "LIST", "delete": http.MethodDelete}[name], args[0], nil)
	case "write":
		if err := need(1); err != nil {
			return err
		}
		return c.send(http.MethodPut, args[0], args[1:], nil)
	case "policy write":
		if err := need(2); err != nil {
			return err
		}
		text, err := c.valueOf(args[1], true)
		if err != nil {
			return err
		}
		return c.ask(http.MethodPut, "sys/policies/acl/"+args[0], map[string]any{"policy": text})
	case "policy delete":
		return errors.Join(need(1), c.ask(http.MethodDelete, "sys/policies/acl/"+strings.Join(args, " "), nil))
	case "secrets enable", "auth enable":
		if err := need(1); err != nil {
			return err
		}
		return c.enable(name, args[0])
	case "secrets list":
		return c.ask(http.MethodGet, "sys/mounts", nil)
	case "auth list":
		return c.ask(http.MethodGet, "sys/auth", nil)
	case "auth tune":
		if err := need(1); err != nil {
			return err
		}
		lock := map[string]any{"lockout_disable": flags["user-lockout-disable"] == "true"}
		return c.ask(http.MethodPost, "sys/auth/"+strings.Trim(args[0], "/")+"/tune", map[string]any{"user_lockout_config": lock})
	case "status":
		return c.ask(http.MethodGet, "sys/seal-status", nil)
	case "kv put", "kv patch", "kv get", "kv undelete", "kv metadata get":
		if err := need(1); err != nil {
			return err
		}
		return c.kv(strings.TrimPrefix(name, "kv "), args[0], args[1:])
	}
	return fmt.Errorf("%q is not known here", name)
}

// commandOf takes the words of the command off its arguments.
func commandOf(args []string) (name string, rest []string) {
	words := 0
	groups := []string{"kv", "policy", "secrets", "auth", "kv metadata"}
	for words < len(args) && !strings.HasPrefix(args[words], "-") {
		words++
		if !slices.Contains(groups, strings.Join(args[:words], " ")) {
			break
		}
	}
	return strings.Join(args[:words], " "), args[words:]
}

// known are the flags; those with true take a value.
var known = map[string]bool{
	"mount": true, "field": true, "format": true, "path": true, "version": true, "versions": true, "wrap-ttl": true,
	"user-lockout-disable": true, "f": false, "force": false, "detailed": false,
}

func split(args []string) (flags map[string]string, rest []string, err error) {
	flags = map[string]string{}
	for _, arg := range args {
		flag, is := strings.CutPrefix(arg, "-")
		if !is || flag == "" {
			rest = append(rest, arg)
			continue
		}
		name, value, valued := strings.Cut(flag, "=")
		if takes, ok := known[name]; !ok || takes != valued {
			return nil, nil, fmt.Errorf("flag %s is not known here", arg)
		}
		flags[name] = value
	}
	return flags, rest, nil
}

// command is one request, and what becomes of its answer.
type command struct {
	flags map[string]string
	in    io.Reader
	out   io.Writer
}

// valueOf is what the text of an argument stands for: itself, standard input (-), or a file (@name; whole is the file's name itself).
func (c command) valueOf(text string, whole bool) (string, error) {
	name, isFile := strings.CutPrefix(text, "@")
	switch {
	case text == "-":
		value, err := io.ReadAll(c.in)
		return string(value), err
	case isFile || whole:
		value, err := os.ReadFile(name)
		return string(value), err
	}
	return text, nil
}

// fields are those of arguments name=value, or of one @file with JSON.
func (c command) fields(args []string) (map[string]any, error) {
	body := map[string]any{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			text, err := c.valueOf(arg, false)
			if err == nil {
				err = json.Unmarshal([]byte(text), &body)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		text, err := c.valueOf(value, false)
		if err != nil {
			return nil, err
		}
		body[name] = text
	}
	return body, nil
}

// send sends fields, below a key where there is one.
func (c command) send(method, path string, args []string, below *string) error {
	body, err := c.fields(args)
	if err != nil {
		return err
	}
	_, force := c.flags["f"]
	if _, also := c.flags["force"]; len(body) == 0 && !force && !also {
		return errors.New("there is nothing to write; use -f")
	}
	if below != nil {
		body = map[string]any{*below: body}
	}
	return c.ask(method, path, body)
}

func (c command) enable(name, kind string) error {
	path := c.flags["path"]
	if path == "" {
		path = kind
	}
	body := map[string]any{"type": kind}
	if version := c.flags["version"]; version != "" {
		body["options"] = map[string]string{"version": version}
	}
	where := map[string]string{"secrets enable": "sys/mounts/", "auth enable": "sys/auth/"}[name]
	return c.ask(http.MethodPost, where+path, body)
}

func (c command) kv(verb, path string, args []string) error {
	mount := strings.Trim(c.flags["mount"], "/")
	if mount == "" {
		return errors.New("kv: -mount is missing")
	}
	two, err := isVersion2(mount)
	if err != nil {
		return err
	}
	data, below := mount+"/data/"+path, "data"
	if !two {
		data = mount + "/" + path
	}
	switch {
	case verb == "put" && !two:
		return c.send(http.MethodPut, data, args, nil)
	case verb == "put":
		return c.send(http.MethodPost, data, args, &below)
	case verb == "patch":
		return c.send(http.MethodPatch, data, args, &below)
	case verb == "undelete":
		return c.ask(http.MethodPost, mount+"/undelete/"+path, map[string]any{"versions": strings.Split(c.flags["versions"], ",")})
	case verb == "metadata get":
		return c.ask(http.MethodGet, mount+"/metadata/"+path, nil)
	}
	return c.ask(http.MethodGet, data, nil)
}

func isVersion2(mount string) (bool, error) {
	answer, err := request(http.MethodGet, "sys/internal/ui/mounts/"+mount, nil, "")
	if err != nil {
		return false, err
	}
	var told struct {
		Data struct{ Options map[string]string }
	}
	return json.Unmarshal(answer, &told) == nil && told.Data.Options["version"] == "2", nil
}

// ask makes the request and prints the answer: all of it, or one field.
func (c command) ask(method, path string, body any) error {
	answer, err := request(method, path, body, c.flags["wrap-ttl"])
	if err != nil || len(answer) == 0 {
		return err
	}
	field := c.flags["field"]
	if field == "" {
		_, err := c.out.Write(answer)
		return err
	}
	var told struct {
		Data     map[string]any
		WrapInfo map[string]any `json:"wrap_info"`
	}
	if err := json.Unmarshal(answer, &told); err != nil {
		return err
	}
	data := told.Data
	if inner, ok := data["data"].(map[string]any); ok && data["metadata"] != nil {
		data = inner
	}
	if told.WrapInfo != nil {
		data = map[string]any{"wrapping_token": told.WrapInfo["token"]}
	}
	value, ok := data[field]
	if !ok {
		return fmt.Errorf("field %s is not in the answer", field)
	}
	_, err = fmt.Fprint(c.out, value)
	return err
}

func request(method, path string, body any, wrapTTL string) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(method, os.Getenv("VAULT_ADDR")+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Vault-Token", os.Getenv("VAULT_TOKEN"))
	r.Header.Set("X-Vault-Request", "true")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if wrapTTL != "" {
		r.Header.Set("X-Vault-Wrap-TTL", wrapTTL)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, said)
	}
	return said, err
}
