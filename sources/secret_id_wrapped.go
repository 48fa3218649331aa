package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"campaign-credsync/internal/credential"
)

// unwrapWords is how long the answer to an unwrapping is waited for by a process that is to end: the secret-id in it comes
// only once.
const unwrapWords = 3 * time.Second

// wrapping exchanges the response-wrapping token in secret_id_file for the secret-id, and keeps that: the exchange works
// once. What is lost between Vault's answer and the write of the file is lost for good, so everything that may fail or
// take time is done before. All but what mu guards belongs to who has the session's turn.
type wrapping struct {
	vault     *Vault
	client    *api.Client // in the namespace of the login, without a token
	file      string
	mount     string
	namespace string
	digest    func(...string) string
	kept      keptIDs

	wait     backoff
	unusable struct { // the wrapping token that Vault does not know, or that is another's
		digest string
		err    error
		until  time.Time
	}
	told string // the failure that was logged because an older secret-id serves

	mu    sync.Mutex
	due   time.Time // when to exchange what is in the file, though the token in use is fresh; zero: not
	hurry bool      // the operator, or a new file, said: do not wait
	again bool      // the operator said: also what is unusable
}

// soon has the file looked at by the next poll; again also where it holds what was found unusable.
func (w *wrapping) soon(again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due, w.hurry, w.again = time.Now(), true, w.again || again
}

// dueAt has the file looked at by the first poll after that, if it is not to be earlier.
func (w *wrapping) dueAt(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due.IsZero() {
		w.due = at
	}
}

// isDue tells whether there may be another wrapping token to exchange now. w may be nil.
func (w *wrapping) isDue(now time.Time) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.due.IsZero() && !now.Before(w.due)
}

func (w *wrapping) said() (hurry, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hurry, again = w.hurry, w.again
	w.due, w.hurry, w.again = time.Time{}, false, false
	return hurry, again
}

// secretID returns the secret-id to log in with, and the digest of the wrapping token it came out of. As long as a new one
// cannot be had, that is the one before.
func (w *wrapping) secretID(ctx context.Context) (id credential.Secret, from string, err error) {
	_, failed := w.renew(ctx)
	record, err := w.kept.load()
	if err != nil {
		return id, "", forPerson{fmt.Errorf("vault login: %w; let this user read it", err)}
	}
	entry := record.serving()
	if entry == nil {
		return id, "", failed
	}
	w.tell(ctx, failed)
	if id, err = w.kept.open(ctx, entry); err != nil && w.kept.onlyReads {
		return id, "", forPerson{fmt.Errorf("vault login: the kept secret-id cannot be unsealed by this command: %w; run it as the "+
			"daemon's user", err)}
	} else if err != nil {
		return id, "", forPerson{fmt.Errorf("vault login: the secret-id that was unwrapped from %s cannot be unsealed: %w; if that stays "+
			"so, put a new wrapped secret-id there", w.file, err)}
	}
	return id, entry.From, nil
}

// tell logs once that an older secret-id serves in place of what is in the file. That the work was cut off is no news.
func (w *wrapping) tell(ctx context.Context, failed error) {
	switch {
	case failed == nil:
		w.told = ""
		return
	case ctx.Err() != nil && errors.Is(failed, ctx.Err()):
		return
	}
	cause := rootText(failed)
	if cause == w.told {
		return
	}
	w.told = cause
	level := slog.LevelWarn
	if _, person := errors.AsType[forPerson](failed); person {
		level = slog.LevelError
	}
	w.vault.logger.Log(ctx, level, "wrapped secret-id cannot be had, the one before it serves", "file", w.file, "reason", cause)
}

// renew exchanges what is in the file, unless that was done before or must wait, and reports whether it did.
func (w *wrapping) renew(ctx context.Context) (renewed bool, err error) {
	hurry, again := w.said()
	token, err := readLine(w.file, "vault.auth.secret_id_file")
	if err != nil {
		return false, forPerson{fmt.Errorf("vault login: %w", err)}
	}
	record, err := w.kept.load()
	if err != nil {
		return false, forPerson{fmt.Errorf("vault login: %w; let this user read it", err)}
	}
	digest := w.digest("wrapping token", token)
	if record.Current != nil && record.Current.From == digest {
		if again && record.Current.Refused {
			record.Current.Refused = false
			w.kept.save(record) // or it is in memory
		}
		w.kept.knows(token, digest)
		return false, nil
	}
	if w.kept.inMemory(token) {
		err := w.kept.again(ctx, digest)
		if ctx.Err() != nil {
			return false, fmt.Errorf("vault login: the kept secret-id is not written again yet: %w", ctx.Err())
		}
		if err != nil {
			w.vault.logger.Error("the kept secret-id was lost and cannot be written again; let this user write to state_dir",
				"file", w.file, "reason", err.Error())
		}
		return false, nil
	}
	if w.kept.onlyReads {
		return false, fmt.Errorf("vault login: the wrapping token in %s was not unwrapped yet, and this command only reads: start the "+
			"daemon, or run campaign-credsync sync", w.file)
	}
	now := time.Now()
	switch wait := w.wait.over(digest, now); {
	case digest == w.unusable.digest && now.Before(w.unusable.until) && !again:
		err = &waiting{cause: w.unusable.err, until: w.unusable.until}
	case wait != nil && !hurry:
		err = wait
	default:
		err = w.exchange(ctx, token, digest, record)
	}
	if err == nil {
		w.wait = backoff{}
		return true, nil
	}
	_, waits := errors.AsType[*waiting](err)
	if u, ok := errors.AsType[*unusableError](err); ok && !waits {
		w.wait = backoff{}
		w.unusable.digest, w.unusable.err = digest, forPerson{u}
		w.unusable.until = now.Add(time.Duration(float64(refusedFor) * jitter()))
		err = &waiting{cause: w.unusable.err, until: w.unusable.until}
	} else if !waits {
		err = w.wait.failed(digest, now, w.vault.gate.down(now), err)
	}
	var later interface{ RetryAt() time.Time }
	if errors.As(err, &later) { // which all of them are
		w.dueAt(later.RetryAt())
	}
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
		return fmt.Errorf("vault login: the wrapping token in %s is not unwrapped yet: %w", w.file, err)
	}
	if err != nil {
		return forPerson{fmt.Errorf("vault login: the wrapping token in %s is not unwrapped, as its secret-id could not be kept: %w; let "+
			"this user write to state_dir", w.file, err)}
	}
	answer, err := w.unwrap(ctx, token)
	if err != nil {
		return w.explain(ctx, "unwrap the secret-id", err, token, notBefore)
	}
	id, ok := answer["secret_id"].(string)
	if !ok { // what it wraps was looked up
		return w.notVaults("unwrap the secret-id")
	}
	if id == "" || strings.ContainsFunc(id, notInLine) {
		return &unusableError{fmt.Sprintf("vault at %s: what was unwrapped from %s is no secret-id; put a new wrapped secret-id there",
			w.vault.address, w.file)}
	}
	if err := w.kept.put(record, key, digest, id); err != nil {
		w.vault.logger.Error("the secret-id that was unwrapped could not be kept, and is lost at a stop; let this user write to state_dir",
			"reason", err.Error())
	}
	if unsealed != nil {
		w.vault.logger.Info("secret-id unwrapped, and kept in state_dir for this user only, as systemd-creds does not seal here",
			"file", w.file, "reason", unsealed.Error())
	} else {
		w.vault.logger.Info("secret-id unwrapped, and kept in state_dir, sealed by systemd-creds", "file", w.file)
	}
	w.kept.knows(token, digest)
	if uses, _ := answer["secret_id_num_uses"].(json.Number); uses != "" && uses != "0" {
		w.vault.logger.Warn("the secret-id may be used a few times only, and each login is one; make it with secret_id_num_uses=0",
			"file", w.file, "uses", uses.String())
	}
	return nil
}

// lookUp refuses what is not the wrapping of a secret-id of our mount: somebody may have put something else in its place.
// It spends nothing.
func (w *wrapping) lookUp(ctx context.Context, token, digest string, record *keptRecord) error {
	bounded, question := w.vault.gate.bound(ctx, requestTimeout)
	defer question.cancel()
	answer, err := w.client.Logical().WriteWithContext(bounded, "sys/wrapping/lookup", map[string]any{"token": token})
	if err != nil {
		return w.explain(ctx, "look up the wrapping token", err, token, record.spent(digest))
	}
	var made string
	if answer != nil {
		made, _ = answer.Data["creation_path"].(string)
	}
	switch {
	case made == "":
		return w.notVaults("look up the wrapping token")
	case w.makesSecretIDs(made):
		return nil
	}
	return &unusableError{fmt.Sprintf("vault at %s: the token in %s wraps the answer of %s and not a secret-id of auth/%s: somebody may "+
		"have put it in the place of ours; find out who, and put a new wrapped secret-id there",
		w.vault.address, w.file, clean(made), credential.Escape(w.mount))}
}

// notVaults is the error of an answer that says yes and is not what Vault answers: nothing follows from it.
func (w *wrapping) notVaults(step string) error {
	return &failure{text: fmt.Sprintf("vault at %s: %s: %s", w.vault.address, step, notVaults)}
}

// makesSecretIDs tells whether the answer of a path is a secret-id of our mount.
func (w *wrapping) makesSecretIDs(path string) bool {
	path = strings.TrimPrefix(path, strings.Trim(w.namespace, "/")+"/")
	role, ok := strings.CutPrefix(path, "auth/"+w.mount+"/role/")
	if !ok {
		return false
	}
	role, kind, ok := strings.Cut(role, "/")
	return ok && role != "" && (kind == "secret-id" || kind == "custom-secret-id")
}

// plainSecretID is what a secret-id that Vault made looks like, and no token of Vault's.
var plainSecretID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// unwrap spends the token. Its answer is waited for longer than any other by a process that is to end.
func (w *wrapping) unwrap(ctx context.Context, token string) (map[string]any, error) {
	bounded, question := w.vault.gate.bound(context.WithoutCancel(ctx), requestTimeout)
	defer question.cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(unwrapWords, question.cancel) })()
	answer, err := withToken(w.client, credential.NewSecret(token)).Logical().UnwrapWithContext(bounded, "")
	if err != nil || answer == nil {
		return nil, err
	}
	return answer.Data, nil
}

// notBefore is who may have spent a token that this daemon has not unwrapped.
const notBefore = "somebody else may have unwrapped it and have our secret-id, or its time is over"

// spent says who may have spent the token with that digest, if it is.
func (r *keptRecord) spent(digest string) string {
	switch {
	case r.Unwrapping == digest:
		return "this daemon was cut off while it unwrapped it, or somebody else did and has our secret-id"
	case r.damaged:
		return keptFile + " in state_dir is damaged, so this daemon may have unwrapped it before, or somebody else did and has our secret-id"
	}
	return notBefore
}

// unknownToken are the words of Vault and OpenBao for a wrapping token that they do not know, or not any more.
var unknownToken = regexp.MustCompile(`^(?:wrapping token is not valid or does not exist|token is not a valid unwrap token|` +
	`no information found; wrapping token|wrapping information was nil; wrapping token)`)

// explain puts a failed request into words. spent says who may have spent the token.
func (w *wrapping) explain(ctx context.Context, step string, err error, token, spent string) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		ctx = context.WithoutCancel(ctx) // the answer came all the same
	}
	err = w.vault.explain(ctx, step, err, credential.NewSecret(token))
	said := saidBy(err)
	if !unknownToken.MatchString(said) {
		return err
	}
	if plainSecretID.MatchString(token) {
		return &unusableError{fmt.Sprintf("vault at %s: what is in %s looks like a secret-id, and not like a wrapping token: set "+
			"vault.auth.secret_id_wrapped to false, or put a wrapped secret-id there (vault says: %s)", w.vault.address, w.file, said)}
	}
	return &unusableError{fmt.Sprintf("vault at %s: the wrapping token in %s is spent or not known: %s. See who asked for "+
		"sys/wrapping/unwrap in Vault's audit log, destroy that secret-id, and put a new wrapped secret-id there (vault says: %s)",
		w.vault.address, w.file, spent, said)}
}

// accepted forgets the secret-id before the one that a login was made with.
func (w *wrapping) accepted(from string) {
	record, err := w.kept.load()
	if err == nil && record.Previous != nil && record.Current.From == from {
		record.Previous, record.Current.Refused = nil, false
		w.kept.save(record) // or it is in memory
	}
}

// rejected tells whether there is another secret-id than the one that Vault refused: the one before.
func (w *wrapping) rejected(ctx context.Context, from string, refusal error) bool {
	record, err := w.kept.load()
	if err != nil || record.Previous == nil || record.Current.From != from {
		return false
	}
	record.Current.Refused = true
	w.kept.save(record) // or it is in memory
	w.tell(ctx, refusal)
	return true
}

// serving is the entry to log in with, nil where there is none.
func (r *keptRecord) serving() *keptID {
	if r.Current != nil && r.Current.Refused && r.Previous != nil {
		return r.Previous
	}
	return r.Current
}
