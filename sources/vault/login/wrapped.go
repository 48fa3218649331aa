package login

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/lazyregexp"
	"campaign-credsync/internal/trouble"
	"campaign-credsync/sources/vault/connection"
)

// unwrapGrace is how long an unwrapping may outlive its cancelled context: the secret-id in its answer comes only once.
const unwrapGrace = 3 * time.Second

// wrapping exchanges the response-wrapping token in secret_id_file for the secret-id, and keeps that: the exchange works
// once. What is lost between Vault's answer and the write of the file is lost for good, so everything that may fail or
// take time is done before. All but retryAt belongs to whoever calls Login and Renew.
type wrapping struct {
	*Method

	opened  keptEntry       // what serves, with its secret-id in clear
	unsaved keptEntry       // what could not be written; it serves all the same
	waits   backoff         // between failed exchanges
	warning trouble.Trouble // that an older secret-id serves

	retryAt atomic.Int64 // Unix time in milliseconds: when to exchange again what is in the file; 0: it is exchanged, or no use
}

// isDue tells whether there is another try to make.
func (w *wrapping) isDue() bool {
	at := w.retryAt.Load()
	return at != 0 && at <= time.Now().UnixMilli()
}

// secretID returns the secret-id to log in with. As long as a new one cannot be had, that is the one before.
func (w *wrapping) secretID(ctx context.Context, asked asked) (string, error) {
	current, _, failed := w.renew(ctx, asked)
	if current.From == "" {
		return "", failed
	}
	w.warn(ctx, failed)
	if current.From != w.opened.From {
		id, err := current.open(ctx)
		if err != nil {
			return "", credential.NeedsOperator(fmt.Errorf("vault login: the secret-id that was unwrapped from %s cannot be unsealed: %w; run "+
				"this as the daemon's user, or, if that stays so, put a new wrapped secret-id there", w.auth.SecretIDFile, err))
		}
		w.opened = keptEntry{From: current.From, Plain: id}
	}
	return w.opened.Plain, nil
}

// warn logs that an older secret-id serves in place of what is in the file. That the work was cut off is no news.
func (w *wrapping) warn(ctx context.Context, failed error) {
	switch {
	case failed == nil:
		w.warning = trouble.Trouble{}
	case ctx.Err() == nil:
		w.warning.Tell(w.logger, time.Now(), failed, "wrapped secret-id unusable, using the previous one", "", "file", w.auth.SecretIDFile)
	}
}

// renew exchanges what is in the file, unless that was done before or must wait, and reports whether it did. current is what serves
// then, also beside an error.
func (w *wrapping) renew(ctx context.Context, asked asked) (current keptEntry, renewed bool, err error) {
	w.retryAt.Store(0)
	record, current, err := w.kept()
	if err != nil {
		return current, false, err
	}
	token, err := readLine(w.auth.SecretIDFile, "vault.auth.secret_id_file")
	digest := w.refusals.digest("wrapping token", token)
	switch {
	case err != nil || current.From == digest:
		return current, false, err
	case w.refusals.onlyReads():
		return current, false, credential.NeedsOperator(fmt.Errorf("vault login: the wrapping token in %s was not unwrapped yet, and this "+
			"command only reads: start the daemon, or run campaign-credsync sync", w.auth.SecretIDFile))
	}
	if asked == askedNothing {
		err = w.waits.over()
	}
	if err == nil {
		var fresh keptEntry
		if fresh, err = w.exchange(ctx, token, digest, record); err == nil {
			w.waits = backoff{}
			return fresh, true, nil
		}
		err = w.waits.failed(err)
	}
	w.retryAt.Store(w.waits.retryAt.UnixMilli())
	return current, false, err
}

// exchange makes sure that the token is that of a secret-id and that this can be kept, unwraps it, and keeps it.
func (w *wrapping) exchange(ctx context.Context, token, digest string, record keptRecord) (entry keptEntry, err error) {
	if err := w.lookUp(ctx, token); err != nil {
		return entry, err
	}
	key, sealed, unsealed := newSealedKey(ctx)
	if ctx.Err() != nil { // which has not shown that nothing here can seal
		return entry, fmt.Errorf("vault login: the wrapping token in %s is not unwrapped yet: %w", w.auth.SecretIDFile, ctx.Err())
	}
	if err := writeRecord(w.keptFile(), record, record.unknown); err != nil { // which shows that the directory takes a file
		return entry, credential.NeedsOperator(fmt.Errorf("vault login: the wrapping token in %s is not unwrapped, as its secret-id could "+
			"not be kept: %w; let this user write to state_dir", w.auth.SecretIDFile, err))
	}
	var answer struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	const step = "unwrap the secret-id"
	_, err = w.connection.Do(ctx, connection.Request{
		Step: step, Path: "sys/wrapping/unwrap", Body: struct{}{},
		Namespace: w.auth.Namespace, Token: credential.NewSecret(token), Grace: unwrapGrace,
	}, &answer)
	secretID := answer.Data.SecretID
	switch {
	case err != nil:
		return entry, w.explain(err)
	case secretID == "": // what it wraps was looked up
		return entry, w.unexpected(step)
	case unsealed != nil:
		entry = keptEntry{From: digest, Plain: secretID}
	default:
		entry = keptEntry{From: digest, Key: string(sealed), Box: box(key).Seal(nil, nil, []byte(secretID), []byte(digest))}
	}
	w.opened, w.unsaved = keptEntry{From: digest, Plain: secretID}, keptEntry{}
	if err := w.keep(record, entry); err != nil {
		w.unsaved = entry
		w.logger.Error("the unwrapped secret-id could not be kept, and is lost at a stop; let this user write to state_dir", "file",
			w.auth.SecretIDFile, "reason", err.Error())
		return entry, nil
	}
	if unsealed != nil {
		w.logger.Info("secret-id unwrapped, and kept in state_dir for this user only, as systemd-creds does not seal here",
			"file", w.auth.SecretIDFile, "reason", unsealed.Error())
	} else {
		w.logger.Info("secret-id unwrapped, and kept in state_dir, sealed by systemd-creds", "file", w.auth.SecretIDFile)
	}
	return entry, nil
}

// lookUp refuses what is not the wrapping of a secret-id of our mount: somebody may have put something else in its place.
// It spends nothing.
func (w *wrapping) lookUp(ctx context.Context, token string) error {
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
	made := answer.Data.Made
	path := strings.TrimPrefix(made, strings.Trim(w.auth.Namespace, "/")+"/")
	switch {
	case err != nil:
		return w.explain(err)
	case made == "":
		return w.unexpected(step)
	case !strings.HasPrefix(path, "auth/"+w.auth.Mount+"/role/") || !strings.HasSuffix(path, "/secret-id") && !strings.HasSuffix(path, "/custom-secret-id"):
		return credential.NeedsOperator(fmt.Errorf("vault at %s: the token in %s wraps the answer of %s and not a secret-id of auth/%s: somebody "+
			"may have put it in the place of ours; find out who, and put a new wrapped secret-id there",
			w.connection.Address(), w.auth.SecretIDFile, credential.Clean(made), credential.Escape(w.auth.Mount)))
	}
	return nil
}

// unknownToken are the words of Vault and OpenBao for a wrapping token that they do not know, or not any more.
var unknownToken = lazyregexp.New(`^(?:wrapping token is not valid or does not exist|token is not a valid unwrap token|` +
	`no information found; wrapping token|wrapping information was nil; wrapping token)`)

// explain raises the alarm of a token that Vault does not know.
func (w *wrapping) explain(err error) error {
	said := connection.Answer(err).Said
	if !unknownToken().MatchString(said) {
		return err
	}
	return credential.NeedsOperator(fmt.Errorf("vault at %s: the wrapping token in %s is spent or not known: somebody else may have unwrapped "+
		"it and have our secret-id; or this daemon was cut off while it unwrapped it, what it unwrapped was removed from state_dir, its time "+
		"is over, or it is a secret-id (then set vault.auth.secret_id_wrapped to false). See who asked for sys/wrapping/unwrap in Vault's "+
		"audit log, destroy that secret-id, and put a new wrapped secret-id there (vault says: %s)", w.connection.Address(), w.auth.SecretIDFile, said))
}
