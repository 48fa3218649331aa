package sources

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/credential"
)

// login logs in, or says why it may not yet: floor is the least time since the last one. The caller has the turn.
func (s *session) login(ctx context.Context, floor time.Duration) (*token, error) {
	end, err := s.processTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	return s.tryLogin(ctx, floor)
}

// processTurn waits for the login of another process of ours. A command that only reads gives up where that is not done in
// time; a daemon goes on, as it notes what it tries beforehand.
func (s *session) processTurn(ctx context.Context) (end func(), err error) {
	end, err = s.refused.turn(ctx)
	switch {
	case err == nil:
		s.last.overtook = false
		return end, nil
	case !errors.Is(err, errOthersTurn):
		return nil, fmt.Errorf("vault login: %w", err)
	case s.refused.late:
		end()
		return nil, fmt.Errorf("vault login: %w", err)
	case !s.last.overtook:
		s.last.overtook = true
		s.vault.logger.Warn("login does not wait any longer for another process", "reason", err.Error())
	}
	return end, nil
}

func (s *session) tryLogin(ctx context.Context, floor time.Duration) (*token, error) {
	if err := s.vault.gate.closed(s.vault); err != nil {
		return nil, err
	}
	s.mu.Lock()
	forgive, hurry := s.forgive, s.hurry
	s.forgive, s.hurry = false, false
	s.mu.Unlock()

	attempt, err := s.vault.method.prepare(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.hidden = attempt.secret
	s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: waiting for a login: %w", s.vault.address, ctx.Err())
	}
	now := time.Now()
	key := s.refused.digest(attempt.identity...)
	accepted := s.refused.accepted(key)
	if until, ok := s.refused.enough(key, now); ok && !accepted {
		return nil, &waiting{cause: forPerson{errors.New(attempt.enough)}, until: until}
	}
	if until, ok := s.refused.refused(key, now); ok && !forgive {
		return nil, &waiting{cause: forPerson{errors.New(attempt.refusal)}, until: until}
	}
	if err := s.wait.over(key, now); err != nil && !hurry {
		return nil, err
	}
	if hurry {
		floor = loginFloor
	}
	if until := s.last.success.Add(floor); now.Before(until) {
		return nil, &waiting{cause: errors.New("vault login: the last one was just now"), until: until, floor: true}
	}
	begun := attempt.refusal != "" && !accepted
	if begun {
		if err := s.refused.begin(key, now); err != nil {
			return nil, forPerson{fmt.Errorf("%s: not tried, as a refused secret-id could not be remembered, and five refused logins "+
				"lock the role for every host: %w; let this user write to state_dir", attempt.step, err)}
		}
	}
	t, err := s.attempt(ctx, attempt)
	if err != nil {
		refused := attempt.refusedBy(err)
		err = s.failed(ctx, attempt, key, begun, err)
		if refused && attempt.rejected != nil && attempt.rejected(err) {
			return s.tryLogin(ctx, floor)
		}
		return nil, err
	}
	if attempt.accepted != nil {
		attempt.accepted()
	} else if err := s.forgetKept(); err != nil {
		s.vault.logger.Warn("an unwrapped secret-id stays kept though it is not used any more", "reason", err.Error())
	}
	s.wait = backoff{}
	s.last.success, s.last.warned = t.born, ""
	if attempt.refusal != "" {
		s.refused.accept(key, t.born)
	}
	if err := s.refused.forget(); err != nil {
		s.vault.logger.Warn("a refused secret-id stays noted though another is accepted", "reason", err.Error())
	}
	s.set(t)
	if s.ends != nil && t.uses == nil {
		s.ends.look(t, key, attempt.secret, t.role)
	}
	s.vault.logger.Debug("logged in to vault", "mount", attempt.mount, "expires", t.expires)
	return t, nil
}

// forgetKept removes, once, what an earlier configuration unwrapped.
func (s *session) forgetKept() error {
	if s.forgotten || s.refused.late { // late is a command that only reads
		return nil
	}
	err := forgetKept(s.refused.dir)
	s.forgotten = err == nil
	return err
}

func (s *session) attempt(ctx context.Context, attempt *attempt) (*token, error) {
	bounded, answer := s.vault.gate.bound(context.WithoutCancel(ctx), requestTimeout)
	defer answer.cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, answer.cancel) })()
	asked := time.Now()
	granted, err := attempt.request.post(bounded, s.logins, attempt.mount)
	if err != nil {
		if bounded.Err() == nil {
			ctx = context.WithoutCancel(ctx) // it came all the same
		}
		return nil, s.vault.explain(ctx, attempt.step, err, s.hide()...)
	}
	if granted.Token == "" {
		return nil, &failure{text: fmt.Sprintf("vault at %s: %s: the answer holds no token; check vault.address and the mount",
			s.vault.address, attempt.step)}
	}
	text := credential.NewSecret(granted.Token)
	t := &token{
		client: withToken(s.vault.reads, text), text: text, born: asked, role: granted.Metadata["role_name"],
		revocable: granted.Type != "batch",
	}
	if granted.Uses > 0 {
		t.uses = new(atomic.Int64)
		t.uses.Store(granted.Uses)
		s.tellUses(granted.Uses)
	}
	if ttl := time.Duration(granted.Lease) * time.Second; ttl > 0 {
		t.expires = asked.Add(ttl)
		t.renew = asked.Add(time.Duration(float64(ttl) * (2.0 / 3) * jitter()))
	}
	return t, nil
}

// tellUses says, once, what it costs that tokens may not be used as often as it takes.
func (s *session) tellUses(uses int64) {
	if s.last.uses == uses {
		return
	}
	s.last.uses = uses
	s.vault.logger.Warn("vault gives tokens that may be used a few times only: each time they are used up is a login, at most one a "+
		"second, and no events are subscribed to; set token_num_uses of the role to 0", "uses", uses)
}

// failed remembers a failed login before its error is returned: a refused secret-id for an hour and across restarts,
// because Vault locks the role for every host that uses it after five, and anything else for a short while.
func (s *session) failed(ctx context.Context, attempt *attempt, key string, begun bool, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		// It was us who gave up: nothing is learnt from it, and it may have been refused.
		if begun {
			if noted := s.refused.cut(key, time.Now()); noted != nil {
				err = fmt.Errorf("%w; not remembered: %w", err, noted)
			}
		}
		return err
	}
	now := time.Now()
	if attempt.refusedBy(err) {
		s.wait = backoff{}
		until, noted := s.refused.add(now, begun, attempt.identity...)
		err = &waiting{cause: forPerson{fmt.Errorf("%s (vault says: %s)", attempt.refusal, saidBy(err))}, until: until}
		if noted != nil {
			err = fmt.Errorf("%w; not remembered across a restart: %w; make state_dir a directory that this user may write to, and do "+
				"not try again before", err, noted)
		}
		return err
	}
	if begun {
		if err := s.refused.unrefused(); err != nil {
			s.vault.logger.Warn("a login that was not refused stays noted as one", "reason", err.Error())
		}
	}
	if remedy := attempt.remedies[statusOf(err)]; remedy != "" {
		err = fmt.Errorf("%w: %s", err, remedy)
	}
	return s.wait.failed(key, now, s.vault.gate.down(now), err)
}
