package nlserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// What campaign.command may be: the options of `nlserver config` that take a credential, and auto for the best of them.
const (
	commandAuto  = "auto"
	CommandOAuth = "setimsoauth"   // Campaign 7.4.1 build 9383 and later
	commandIMS   = "setimsauth"    // before
	commandJWT   = "setimsjwtauth" // before, with a private key
)

// preferred lists the options in the order in which auto takes them.
var preferred = []string{CommandOAuth, commandIMS, commandJWT}

// offer is the best option of an executable. It is remembered, as to ask costs a start of nlserver, which takes seconds.
type offer struct {
	executable os.FileInfo
	option     string
}

// chooseOption returns the configured option, or the best that nlserver lists.
func (b *Binary) chooseOption(ctx context.Context, env []string) (string, error) {
	if b.cfg.Command != commandAuto {
		return b.cfg.Command, nil
	}
	executable, err := b.inspect()
	if err != nil {
		return "", err
	}
	if o := b.offer.Load(); o != nil && os.SameFile(o.executable, executable) &&
		o.executable.Size() == executable.Size() && o.executable.ModTime().Equal(executable.ModTime()) {
		return o.option, nil
	}
	list, err := b.list(ctx, env)
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return "", err
	}
	for _, option := range preferred {
		if offers(list, option) {
			b.offer.Store(&offer{executable, option})
			return option, nil
		}
	}
	cause := saying(redact(list))
	if err != nil {
		cause = ": " + err.Error()
	}
	return "", fmt.Errorf("%s config -? lists none of -%s; update Campaign to 7.4.1 build 9383 or later, or set campaign.command%s",
		b.cfg.Executable, strings.Join(preferred, ", -"), cause)
}

// list returns what nlserver prints about its options. Beside an *exec.ExitError that may be all of them.
func (b *Binary) list(ctx context.Context, env []string) (string, error) {
	printed, _, err := b.nlserver(ctx, "nlserver config -?", child{args: []string{"config", "-?"}, env: env})
	b.ran("", doOptions, err)
	return printed, err
}

// Inspection is what nlserver says of itself.
type Inspection struct {
	Options []string // that take a credential, the best first; a list without one of them is weak evidence, as it is not complete
	Build   int      // 0: not said
}

// Inspect runs nlserver config -?, and hands it no credential.
func (b *Binary) Inspect(ctx context.Context) (i Inspection, err error) {
	env, err := b.environment(ctx)
	if err != nil {
		return i, err
	}
	printed, err := b.list(ctx, env)
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return i, err
	}
	for _, option := range preferred {
		if offers(printed, option) {
			i.Options = append(i.Options, option)
		}
	}
	i.Build = b.answer(printed, "", "", "", 0).Build
	return i, nil
}

// offers reports whether text names option as a whole word: an option with a longer name is another option.
func offers(text, option string) bool {
	return regexp.MustCompile(`(^|[^\w-])-` + regexp.QuoteMeta(option) + `([^\w-]|$)`).MatchString(text)
}

// Option returns the option by which a credential would be handed over. It may run nlserver config -?.
func (b *Binary) Option(ctx context.Context) (string, error) {
	if b.cfg.Command != commandAuto {
		return b.cfg.Command, nil
	}
	env, err := b.environment(ctx)
	if err != nil {
		return "", err
	}
	return b.chooseOption(ctx, env)
}
