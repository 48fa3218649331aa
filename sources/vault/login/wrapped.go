package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

// unwrapGrace is how long an unwrapping may outlive its cancelled context: the secret-id in its answer comes only once.
const unwrapGrace = 3 * time.Second

// wrapping exchanges the response-wrapping token in secret_id_file for the secret-id, and keeps that: the exchange works
// once. What is lost between Vault's answer and the write of the file is lost for good, so everything that may fail or
// take time is done before. All but due belongs to who calls Login and Renew.
type wrapping struct {
	connection *connection.Connection
	logger     *slog.Logger
	auth       config.Auth
	onlyReads  bool
	digest     func(...string) string
	kept       keptIDs

	backoff backoff
	told    string // the failure that was logged because an older secret-id serves

	due atomic.Int64 // Unix time in milliseconds: when to exchange what is in the file, though the token in use is fresh; 0: not
}

func now() int64 { return time.Now().UnixMilli() }

// isDue tells whether there may be another wrapping token to exchange now.
func (w *wrapping) isDue() bool {
	due := w.due.Load()
	return due != 0 && due <= now()
}

func newWrapping(config Config, digest func(...string) string) *wrapping {
	return &wrapping{
		connection: config.Connection, logger: config.Logger, auth: config.Auth, onlyReads: config.State.OnlyReads,
		digest: digest, kept: keptIDs{dir: config.State.StateDir},
	}
}

// secretID returns the secret-id to log in with. As long as a new one cannot be had, that is the one before.
func (w *wrapping) secretID(ctx context.Context, asked asked) (id credential.Secret, err error) {
	_, failed := w.renew(ctx, asked)
	record, err := w.kept.load()
	if err != nil {
		return id, err
	}
	if record.Current == nil {
		return id, failed
	}
	w.tell(ctx, failed)
	if id, err = w.kept.open(ctx, record.Current); err != nil {
		remedy := "if that stays so, put a new wrapped secret-id there"
		if w.onlyReads {
			remedy = "run this command as the daemon's user"
		}
		err = credential.NeedsOperator(fmt.Errorf("vault login: the secret-id that was unwrapped from %s cannot be unsealed: %w; %s",
			w.auth.SecretIDFile, err, remedy))
	}
	return id, err
}

// tell logs once that an older secret-id serves in place of what is in the file. That the work was cut off is no news.
func (w *wrapping) tell(ctx context.Context, failed error) {
	switch {
	case failed == nil:
		w.told = ""
		return
	case ctx.Err() != nil && errors.Is(failed, ctx.Err()), w.told == RootText(failed):
		return
	}
	w.told = RootText(failed)
	level := slog.LevelWarn
	if credential.IsForOperator(failed) {
		level = slog.LevelError
	}
	w.logger.Log(ctx, level, "wrapped secret-id unusable, using the previous one", "file", w.auth.SecretIDFile, "reason", w.told)
}

// renew exchanges what is in the file, unless that was done before or must wait, and reports whether it did.
func (w *wrapping) renew(ctx context.Context, asked asked) (renewed bool, err error) {
	w.due.Store(0)
	token, err := readLine(w.auth.SecretIDFile, "vault.auth.secret_id_file")
	if err != nil {
		return false, err
	}
	record, err := w.kept.load()
	if err != nil {
		return false, err
	}
	digest := w.digest("wrapping token", token)
	if record.Current != nil && record.Current.From == digest {
		return false, nil
	}
	if w.onlyReads {
		return false, fmt.Errorf("vault login: the wrapping token in %s was not unwrapped yet, and this command only reads: start the "+
			"daemon, or run campaign-credsync sync", w.auth.SecretIDFile)
	}
	if err = w.backoff.over(digest, asked); err == nil {
		if err = w.exchange(ctx, token, digest, record); err == nil {
			w.backoff = backoff{}
			return true, nil
		}
		if u, ok := errors.AsType[*unusableError](err); ok {
			err = w.backoff.leaveAlone(digest, u)
		} else {
			err = w.backoff.failed(digest, err)
		}
	}
	w.due.CompareAndSwap(0, w.backoff.retryAt.UnixMilli())
	return false, err
}

// unusableError is a wrapping token that another try does not mend.
type unusableError struct{ text string }

func (u *unusableError) Error() string { return u.text }

// exchange makes sure that the token is that of a secret-id and that this can be kept, unwraps it, and keeps it.
func (w *wrapping) exchange(ctx context.Context, token, digest string, record *keptRecord) error {
	if err := w.lookUp(ctx, token, digest, record); err != nil {
		return err
	}
	key, unsealed, err := w.kept.reserve(ctx, record, digest)
	if err != nil && errors.Is(err, ctx.Err()) {
		return fmt.Errorf("vault login: the wrapping token in %s is not unwrapped yet: %w", w.auth.SecretIDFile, err)
	}
	if err != nil {
		return credential.NeedsOperator(fmt.Errorf("vault login: the wrapping token in %s is not unwrapped, as its secret-id could not be "+
			"kept: %w; let this user write to state_dir", w.auth.SecretIDFile, err))
	}
	var answer struct {
		Data struct {
			SecretID *string `json:"secret_id"`
		} `json:"data"`
	}
	const step = "unwrap the secret-id"
	_, err = w.connection.Do(ctx, connection.Request{
		Step: step, Path: "sys/wrapping/unwrap", Write: true,
		Namespace: w.auth.Namespace, Token: credential.NewSecret(token), Grace: unwrapGrace,
	}, &answer)
	if err != nil {
		return w.explain(err, token, false)
	}
	id := answer.Data.SecretID
	if id == nil { // what it wraps was looked up
		return w.unexpected(step)
	}
	if *id == "" || strings.ContainsFunc(*id, notInLine) {
		return w.unusableToken("what was unwrapped from %s is no secret-id; put a new wrapped secret-id there", w.auth.SecretIDFile)
	}
	if err := w.kept.put(record, key, digest, *id); err != nil {
		w.logger.Error("the secret-id that was unwrapped could not be kept, and is lost at a stop; let this user write to state_dir",
			"reason", err.Error())
	}
	if unsealed != nil {
		w.logger.Info("secret-id unwrapped, and kept in state_dir for this user only, as systemd-creds does not seal here",
			"file", w.auth.SecretIDFile, "reason", unsealed.Error())
	} else {
		w.logger.Info("secret-id unwrapped, and kept in state_dir, sealed by systemd-creds", "file", w.auth.SecretIDFile)
	}
	return nil
}

// lookUp refuses what is not the wrapping of a secret-id of our mount: somebody may have put something else in its place.
// It spends nothing.
func (w *wrapping) lookUp(ctx context.Context, token, digest string, record *keptRecord) error {
	var answer struct {
		Data struct {
			Made string `json:"creation_path"`
		} `json:"data"`
	}
	const step = "look up the wrapping token"
	_, err := w.connection.Do(ctx, connection.Request{
		Step: step, Path: "sys/wrapping/lookup", Body: map[string]any{"token": token},
		Namespace: w.auth.Namespace, Hide: []credential.Secret{credential.NewSecret(token)},
	}, &answer)
	switch made := answer.Data.Made; {
	case err != nil:
		return w.explain(err, token, record.Unwrapping == digest)
	case made == "":
		return w.unexpected(step)
	case !w.makesSecretIDs(made):
		return w.unusableToken("the token in %s wraps the answer of %s and not a secret-id of auth/%s: somebody may have put it in the "+
			"place of ours; find out who, and put a new wrapped secret-id there",
			w.auth.SecretIDFile, credential.Clean(made), credential.Escape(w.auth.Mount))
	}
	return nil
}

// unexpected is the error of an answer that says yes and is not what Vault answers: nothing follows from it.
func (w *wrapping) unexpected(step string) error {
	return fmt.Errorf("vault at %s: %s: %w", w.connection.Address(), step, connection.ErrUnexpected)
}

func (w *wrapping) unusableToken(format string, args ...any) error {
	return &unusableError{fmt.Sprintf("vault at %s: ", w.connection.Address()) + fmt.Sprintf(format, args...)}
}

// makesSecretIDs tells whether the answer of a path is a secret-id of our mount.
func (w *wrapping) makesSecretIDs(path string) bool {
	path = strings.TrimPrefix(path, strings.Trim(w.auth.Namespace, "/")+"/")
	role, ok := strings.CutPrefix(path, "auth/"+w.auth.Mount+"/role/")
	if !ok {
		return false
	}
	role, kind, ok := strings.Cut(role, "/")
	return ok && role != "" && (kind == "secret-id" || kind == "custom-secret-id")
}

// plainSecretID is what a secret-id that Vault made looks like, and no token of Vault's.
var plainSecretID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// unknownToken are the words of Vault and OpenBao for a wrapping token that they do not know, or not any more.
var unknownToken = regexp.MustCompile(`^(?:wrapping token is not valid or does not exist|token is not a valid unwrap token|` +
	`no information found; wrapping token|wrapping information was nil; wrapping token)`)

// explain raises the alarm of a token that Vault does not know. begun says that this daemon was about to unwrap it before.
func (w *wrapping) explain(err error, token string, begun bool) error {
	spentBy := "somebody else may have unwrapped it and have our secret-id, or what this daemon unwrapped was removed from state_dir, or its " +
		"time is over"
	if begun {
		spentBy = "this daemon was cut off while it unwrapped it, or somebody else did and has our secret-id"
	}
	said := connection.Answer(err).Said
	switch {
	case !unknownToken.MatchString(said):
		return err
	case plainSecretID.MatchString(token):
		return w.unusableToken("what is in %s looks like a secret-id, and not like a wrapping token: set vault.auth.secret_id_wrapped to "+
			"false, or put a wrapped secret-id there (vault says: %s)", w.auth.SecretIDFile, said)
	}
	return w.unusableToken("the wrapping token in %s is spent or not known: %s. See who asked for sys/wrapping/unwrap in Vault's audit "+
		"log, destroy that secret-id, and put a new wrapped secret-id there (vault says: %s)", w.auth.SecretIDFile, spentBy, said)
}
