package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/jitter"
	"campaign-credsync/internal/lazyregexp"
	"campaign-credsync/sources/vault/connection"
)

const (
	// loginGrace is how long a login may outlive its cancelled context: without its answer nobody would know whether the
	// secret-id was refused.
	loginGrace = time.Second
	// renewAt is the part of a token's life after which another one is due, jittered.
	renewAt = 2.0 / 3
)

// asked is what somebody asked for, and was not done yet.
type asked int32

const (
	askedNothing asked = iota
	askedNow           // do not wait
	askedAgain         // do not wait, and try again also what was refused
)

// Method is a way to a token. Login and Renew are called by one goroutine at a time, the others at any time.
type Method struct {
	connection *connection.Connection
	auth       config.Auth
	logger     *slog.Logger
	// prepare reads what the login needs from its files, anew each time. It asks nobody on the network, but for a secret-id
	// that has to be unwrapped.
	prepare   func(context.Context, asked) (*attempt, error)
	refusals  *refusals
	wrapping  *wrapping  // nil, but where the secret-id is wrapped
	tokenFile *tokenFile // nil, but where the token is in a file
	files     []string

	asked   atomic.Int32
	backoff backoff           // between failed logins
	used    credential.Secret // the secret-id of the last login that succeeded
	// another says that the file of the secret-id may hold another one than used: it changed, an operator asks, or a login failed.
	another atomic.Bool

	warnOfUses sync.Once
	warnedOf   time.Time                   // the end of a secret-id
	end        atomic.Pointer[secretIDEnd] // of that of the last login; nil: not asked for
}

// attempt is one login about to be made.
type attempt struct {
	request map[string]string // as documented in the API of the method
	secret  credential.Secret // what no error may show
	remedy  string            // what to do where Vault says that this login is not allowed

	// What to say of a secret-id that is not tried, and what to do; empty where Vault counts no refused logins.
	refused  string // by Vault, in its own words for that
	tooOften string // tried so often in a row that not even an operator's order tries it again for now

	// What refusals know of it, where Vault counts refused logins.
	digest           string // tells it from others
	before, accepted note   // what was noted before it
	counts           bool   // Vault may count it as a refused one
}

// wrongLogin are the words of every Vault since 0.6, and of OpenBao, for a role-id or a secret-id that it does not know, or not
// any more. Other refusals, as for the address that a login comes from, may be over at the next try.
var wrongLogin = lazyregexp.New(`(?i)^(?:failed to validate (?:SecretID|credentials): )?(?:` +
	`invalid role or secret id\b|invalid (?:role|secret)[ _]id\b|invalid credentials\b|` +
	`failed to find secondary index for role_id\b|failed to validate role_id\b|` +
	`role .* referred by the (?:SecretID|role_id)\b.* does not exist)|` +
	`^failed to validate credentials; could not find role\b`)

// Login returns a token to use from now on, or says why there is none yet: a [*BackoffError] where another try must wait.
func (m *Method) Login(ctx context.Context) (*Token, error) {
	m.another.Store(false) // before its file is read
	t, err := m.login(ctx)
	if err != nil {
		m.another.Store(true)
	}
	return t, credential.Because(m.reasonOf(err), err)
}

func (m *Method) login(ctx context.Context) (*Token, error) {
	if m.tokenFile != nil {
		return m.tokenFile.login(ctx)
	}
	defer m.refusals.turn(ctx, m.auth.SecretIDFile)()
	asked := asked(m.asked.Swap(int32(askedNothing)))
	a, err := m.prepare(ctx, asked)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: waiting for a login: %w", m.connection.Address(), ctx.Err())
	}
	if err := m.backoff.over(); err != nil && asked == askedNothing {
		return nil, err
	}
	if a.refused != "" {
		a.digest = m.digest(a)
		if m.backoff.err != nil {
			a.tooOften += " (the last one: " + m.backoff.err.Error() + ")"
		}
		if err := m.refusals.begin(a, asked == askedAgain); err != nil {
			return nil, err
		}
	}
	t, err := m.ask(ctx, a)
	if err != nil {
		return nil, m.failed(ctx, a, err)
	}
	m.succeeded(a, t)
	if a.refused != "" && m.auth.SecretIDWarn > 0 && t.uses == nil && !m.refusals.onlyReads() {
		m.warnOfEnd(ctx, t)
	} else {
		m.end.Store(nil)
	}
	return t, nil
}

// digest tells the secret-id of a from others.
func (m *Method) digest(a *attempt) string {
	return m.refusals.digest(m.connection.Address(), m.auth.Namespace, m.auth.Mount, fmt.Sprint(a.request))
}

func (m *Method) step() string { return "login at auth/" + m.auth.Mount }

// ask makes the login.
func (m *Method) ask(ctx context.Context, a *attempt) (*Token, error) {
	var answer struct {
		Auth struct {
			Token    string            `json:"client_token"`
			Lease    int               `json:"lease_duration"` // in seconds; 0: it never ends
			Metadata map[string]string `json:"metadata"`
			Uses     int64             `json:"num_uses"` // 0: any number
			Type     string            `json:"token_type"`
		} `json:"auth"`
	}
	born := time.Now()
	_, err := m.connection.Do(ctx, connection.Request{
		Step: m.step(), Path: "auth/" + m.auth.Mount + "/login", Body: a.request, Namespace: m.auth.Namespace,
		Hide: []credential.Secret{a.secret, credential.NewSecret(a.request["role_id"])}, Grace: loginGrace,
	}, &answer)
	granted := answer.Auth
	switch {
	case err != nil:
		return nil, err
	case granted.Token == "":
		return nil, m.unexpected(m.step())
	}
	t := &Token{Text: credential.NewSecret(granted.Token), Born: born, Revocable: granted.Type != "batch"}
	if granted.Uses > 0 {
		t.uses = new(atomic.Int64)
		t.uses.Store(granted.Uses)
		m.warnOfUses.Do(func() {
			m.logger.Warn("vault gives tokens that may be used a few times only: each time they are used up is a login, at most one a "+
				"second, and no events are subscribed to; set token_num_uses of the role to 0", "uses", granted.Uses)
		})
	}
	if ttl := time.Duration(granted.Lease) * time.Second; ttl > 0 {
		t.Expires = born.Add(ttl)
		t.renew = born.Add(jitter.Around(time.Duration(float64(ttl) * renewAt)))
	}
	t.role = granted.Metadata["role_name"]
	if a.refused != "" {
		t.secretID = a.secret
	}
	return t, nil
}

// unexpected is the error of an answer that says yes and is not what Vault answers: nothing follows from it.
func (m *Method) unexpected(step string) error {
	return fmt.Errorf("vault at %s: %s: %w", m.connection.Address(), step, connection.ErrUnexpected)
}

func (m *Method) succeeded(a *attempt, t *Token) {
	m.backoff, m.used = backoff{}, a.secret
	if m.refusals.onlyReads() {
		return
	}
	var err error
	if a.refused != "" {
		err = m.refusals.accept(a)
	}
	if m.wrapping == nil { // an earlier configuration may have kept one
		err = errors.Join(err, removeFile(filepath.Join(m.refusals.StateDir, keptFile)))
	}
	if err != nil {
		m.logger.Warn("cannot remove what is remembered of another secret-id", "reason", err.Error(), "remedy", "let this user write to state_dir")
	}
	m.logger.Debug("logged in to vault", "mount", m.auth.Mount, "expires", t.Expires)
}

// failed remembers a failed login before its error is returned: a refused secret-id for an hour and across restarts, anything
// else for a short while.
func (m *Method) failed(ctx context.Context, a *attempt, err error) error {
	answer := connection.Answer(err)
	judged := a.counts && mayBeJudged(err)
	if m.refusals.onlyReads() && judged {
		if makeErr := m.refusals.makeStateDir(); makeErr != nil {
			return fmt.Errorf("%w; not remembered: %w; make state_dir a directory that this user may write to, and do not try again before", err, makeErr)
		}
		a.digest = m.digest(a)
	}
	switch {
	case a.refused != "" && wrongLogin().MatchString(answer.Said):
		until := time.Now().Add(jitter.Around(refusedFor))
		m.refusals.refuse(a, until)
		m.backoff = backoff{err: err}
		return &BackoffError{credential.NeedsOperator(fmt.Errorf("%s (vault says: %s)", a.refused, answer.Said)), until}
	case judged:
		m.refusals.note(a.before.tried(a.digest, time.Time{}))
	case a.counts && !m.refusals.onlyReads():
		m.refusals.note(a.before)
	}
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return err // it was us who gave up: nothing is learnt from it
	case answer.Status == http.StatusForbidden, answer.Status == http.StatusBadRequest && a.refused == "":
		err = fmt.Errorf("%w: %s", err, a.remedy)
	}
	return m.backoff.failed(err)
}

// mayBeJudged reports whether Vault may have counted the secret-id as refused. It has not where the request never left, or where Vault
// itself gives another answer than to a wrong one: it is sealed, a standby, asks to be left alone, or does not let this host log in. An
// answer that was lost, or is not Vault's, may stand for a refusal.
func mayBeJudged(err error) bool {
	answer := connection.Answer(err)
	if answer.Status != 0 {
		return answer.Status == http.StatusBadRequest && (answer.Said == "" || wrongLogin().MatchString(answer.Said))
	}
	return answer.Sent || errors.Is(err, connection.ErrUnexpected)
}

// Due reports whether Renew has anything to look at.
func (m *Method) Due() bool {
	return m.tokenFile != nil || m.another.Load() || m.end.Load().isDue() ||
		m.wrapping != nil && (asked(m.asked.Load()) != askedNothing || m.wrapping.isDue())
}

// Renew reports whether there is something new to log in with though t, the token in use, is fresh. It asks for the end of the
// secret-id of t where that is due.
func (m *Method) Renew(ctx context.Context, t *Token) bool {
	if m.end.Load().isDue() {
		m.warnOfEnd(ctx, t)
	}
	if m.wrapping == nil {
		return m.tokenFile != nil || m.another.Swap(false) && m.holdsAnother()
	}
	m.another.Store(false) // wrapping knows by itself
	if !m.Due() {
		return false
	}
	defer m.refusals.turn(ctx, m.auth.SecretIDFile)()
	_, renewed, err := m.wrapping.renew(ctx, asked(m.asked.Load())) // the word is for a login, too
	if renewed {
		m.backoff = backoff{} // it was for another secret-id
	}
	m.wrapping.warn(ctx, err)
	return renewed
}

// holdsAnother reports whether the file of the secret-id holds another one than the token in use was got with. That may end soon.
func (m *Method) holdsAnother() bool {
	same, known := m.compareFile()
	return known && !same
}

// HoldsUsed reports whether the file of the secret-id holds the very one that the token in use was got with. A wrapped one it cannot tell.
func (m *Method) HoldsUsed() bool {
	same, known := m.compareFile()
	return known && same && m.wrapping == nil
}

func (m *Method) compareFile() (same, known bool) {
	if m.auth.SecretIDFile == "" {
		return false, false
	}
	secretID, err := readLine(m.auth.SecretIDFile, "vault.auth.secret_id_file")
	return secretID == m.used.Reveal(), err == nil
}

// Retry forgets the waits after failures. With refused, also a refused secret-id may be tried once more, if it was not tried
// so often in a row that the role is near its lock.
func (m *Method) Retry(refused bool) {
	m.another.Store(true)
	if refused {
		m.asked.Store(int32(askedAgain))
	} else {
		m.asked.CompareAndSwap(int32(askedNothing), int32(askedNow))
	}
}

// Files are what a login reads.
func (m *Method) Files() []string { return m.files }
