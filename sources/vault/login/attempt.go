package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
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

// method is a login at a mount of Vault's. Its parts differ in what an attempt consists of.
type method struct {
	connection *connection.Connection
	auth       config.Auth
	logger     *slog.Logger
	// prepare reads what the login needs from its files, anew each time. It asks nobody on the network, but for a secret-id
	// that has to be unwrapped.
	prepare  func(context.Context, asked) (*attempt, error)
	refusals *refusals
	wrapping *wrapping    // nil, but where the secret-id is wrapped
	end      *secretIDEnd // nil where nobody is to be warned
	files    []string

	asked   atomic.Int32
	backoff backoff // between failed logins
	uses    int64   // for how many the last token was
}

func newMethod(config Config) *method {
	return &method{
		connection: config.Connection, auth: config.Auth, logger: config.Logger,
		refusals: &refusals{State: config.State, logger: config.Logger},
	}
}

// attempt is one login about to be made.
type attempt struct {
	request  map[string]string // as documented in the API of the method
	identity []string          // what makes two attempts at this mount the same; for a digest only
	secret   credential.Secret // what no error may show
	remedy   string            // what to do where Vault says that this login is not allowed
	secretID *secretIDTexts    // nil where Vault counts no refused ones

	key    string // tells it from others
	counts bool   // Vault may count it as a refused one, so it is noted
}

// secretIDTexts is what to say of a secret-id that is not tried, and what to do.
type secretIDTexts struct {
	refused  string // by Vault, in its own words for that
	tooOften string // so often in a row that not even an operator's word tries it again for now
}

// wrongLogin are the words of every Vault since 0.6, and of OpenBao, for a role-id or a secret-id that it does not know, or not
// any more. Other refusals, as for the address that a login comes from, may be over at the next try.
var wrongLogin = regexp.MustCompile(`(?i)^(?:failed to validate (?:SecretID|credentials): )?(?:` +
	`invalid role or secret id\b|invalid (?:role|secret)[ _]id\b|invalid credentials\b|` +
	`failed to find secondary index for role_id\b|failed to validate role_id\b|` +
	`role .* referred by the (?:SecretID|role_id)\b.* does not exist)|` +
	`^failed to validate credentials; could not find role\b`)

func (m *method) Login(ctx context.Context) (*Token, error) {
	end, err := m.refusals.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := m.connection.Throttled(); err != nil {
		return nil, err
	}
	asked := asked(m.asked.Swap(int32(askedNothing)))
	a, err := m.prepare(ctx, asked)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: waiting for a login: %w", m.connection.Address(), ctx.Err())
	}
	a.key = m.key(a)
	if err := m.begin(a, asked); err != nil {
		return nil, err
	}
	t, err := m.ask(ctx, a)
	if err != nil {
		return nil, m.failed(ctx, a, err)
	}
	m.succeeded(a, t)
	return t, nil
}

func (m *method) step() string { return "login at auth/" + m.auth.Mount }

// key is what makes two attempts the same.
func (m *method) key(a *attempt) string {
	return m.refusals.digest(append([]string{m.connection.Address(), m.auth.Namespace, m.auth.Mount}, a.identity...)...)
}

// begin returns an error while this attempt must not be made. Where Vault may count it, it is noted.
func (m *method) begin(a *attempt, asked asked) error {
	var noteErr error
	if a.secretID != nil {
		verdict, until, err := m.refusals.judge(a.key)
		switch {
		case verdict == triedTooOften:
			return &BackoffError{credential.NeedsOperator(errors.New(a.secretID.tooOften)), until}
		case verdict == wasRefused && asked != askedAgain:
			return &BackoffError{credential.NeedsOperator(errors.New(a.secretID.refused)), until}
		}
		a.counts, noteErr = verdict != wasAccepted, err
	}
	if asked == askedNothing {
		if err := m.backoff.over(a.key); err != nil {
			return err
		}
	}
	if a.counts && noteErr == nil {
		noteErr = m.refusals.begin(a.key)
	}
	if noteErr != nil {
		return credential.NeedsOperator(fmt.Errorf("%s: not tried, as a refused secret-id could not be remembered, and five refused "+
			"logins lock the role for every host: %w; let this user write to state_dir", m.step(), noteErr))
	}
	return nil
}

// ask makes the login.
func (m *method) ask(ctx context.Context, a *attempt) (*Token, error) {
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
		m.warnOfUses(granted.Uses)
	}
	if ttl := time.Duration(granted.Lease) * time.Second; ttl > 0 {
		t.Expires = born.Add(ttl)
		t.renew = born.Add(jittered(time.Duration(float64(ttl) * renewAt)))
	}
	if m.end != nil && t.uses == nil {
		m.end.look(t.Text, a.secret, granted.Metadata["role_name"])
	}
	return t, nil
}

// unexpected is the error of an answer that says yes and is not what Vault answers: nothing follows from it.
func (m *method) unexpected(step string) error {
	return fmt.Errorf("vault at %s: %s: %w", m.connection.Address(), step, connection.ErrUnexpected)
}

// warnOfUses says, once, what it costs that tokens may not be used as often as it takes.
func (m *method) warnOfUses(uses int64) {
	if m.uses == uses {
		return
	}
	m.uses = uses
	m.logger.Warn("vault gives tokens that may be used a few times only: each time they are used up is a login, at most one a "+
		"second, and no events are subscribed to; set token_num_uses of the role to 0", "uses", uses)
}

func (m *method) succeeded(a *attempt, t *Token) {
	m.backoff = backoff{}
	if a.secretID != nil {
		if err := m.refusals.accept(a.key); err != nil {
			m.logger.Warn("cannot clear the record of a refused secret-id", "reason", err.Error())
		}
	}
	if m.wrapping == nil && !m.refusals.OnlyReads { // an earlier configuration may have kept one
		if err := removeFile(filepath.Join(m.refusals.StateDir, keptFile)); err != nil {
			m.logger.Warn("cannot remove an unwrapped secret-id that is not used any more", "reason", err.Error())
		}
	}
	m.logger.Debug("logged in to vault", "mount", m.auth.Mount, "expires", t.Expires)
}

// failed remembers a failed login before its error is returned: a refused secret-id for an hour and across restarts, anything
// else for a short while.
func (m *method) failed(ctx context.Context, a *attempt, err error) error {
	answer := connection.Answer(err)
	refused := a.secretID != nil && wrongLogin.MatchString(answer.Said)
	var until time.Time
	var noteErr error
	switch {
	case refused:
		m.backoff = backoff{}
		err, until = credential.NeedsOperator(fmt.Errorf("%s (vault says: %s)", a.secretID.refused, answer.Said)), time.Now().Add(jittered(refusedFor))
		noteErr = m.refusals.failed(func() string { return m.key(a) }, until)
	case a.counts && notJudged(err):
		m.refusals.withdraw()
	case a.counts && m.refusals.OnlyReads:
		noteErr = m.refusals.failed(func() string { return m.key(a) }, until)
	}
	if noteErr != nil { // this process remembers it all the same
		return m.backoff.wait(m.key(a), fmt.Errorf("%w; not remembered across a restart: %w; make state_dir a directory that this user may "+
			"write to, and do not try again before", err, noteErr), jittered(refusedFor))
	}
	switch {
	case refused:
		return &BackoffError{err, until}
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return err // it was us who gave up: nothing is learnt from it
	case answer.Status == http.StatusForbidden, answer.Status == http.StatusBadRequest && a.secretID == nil:
		err = fmt.Errorf("%w: %s", err, a.remedy)
	}
	return m.backoff.failed(a.key, err)
}

// notJudged reports whether it is certain that Vault has not looked at the secret-id: the request never left, or Vault's own
// answer is another than to a wrong one, as when it is sealed, a standby or asks to be left alone. An answer that was lost, or
// is not Vault's, may stand for a refusal.
func notJudged(err error) bool {
	answer := connection.Answer(err)
	if answer.Status != 0 {
		return answer.Status != http.StatusBadRequest
	}
	return !answer.Sent && !errors.Is(err, connection.ErrUnexpected)
}

func (m *method) Due() bool {
	return m.wrapping != nil && (asked(m.asked.Load()) != askedNothing || m.wrapping.isDue())
}

func (m *method) Renew(ctx context.Context) bool {
	if !m.Due() {
		return false
	}
	end, err := m.refusals.turn(ctx)
	if err != nil {
		return false
	}
	defer end()
	renewed, err := m.wrapping.renew(ctx, asked(m.asked.Swap(int32(askedNothing))))
	m.wrapping.warn(ctx, err)
	return renewed
}

func (m *method) Retry(refused bool) {
	if refused {
		m.asked.Store(int32(askedAgain))
	} else {
		m.asked.CompareAndSwap(int32(askedNothing), int32(askedNow))
	}
}

func (m *method) Files() []string { return m.files }

func (m *method) Close() {
	if m.end != nil {
		m.end.close()
	}
}
