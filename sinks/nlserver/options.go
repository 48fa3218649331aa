package nlserver

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// What campaign.command may be: the options of `nlserver config` that take a credential, and auto for the best of them.
const (
	commandAuto  = "auto"
	commandOAuth = "setimsoauth"   // Campaign 7.4.1 build 9383 and later
	commandIMS   = "setimsauth"    // before
	commandJWT   = "setimsjwtauth" // before, with a private key
)

// preferred lists the options in the order in which auto takes them.
var preferred = []string{commandOAuth, commandIMS, commandJWT}

// offered remembers what an executable offers: to ask costs a start of nlserver, which takes seconds.
type offered struct {
	mu         sync.Mutex // held while nlserver is asked
	executable executableKey
	option     string
}

// Option returns the option that hands over a credential, without its dash: the configured one, or the best that the
// executable offers. It may have to run nlserver. May be called concurrently.
func (n *Server) Option(ctx context.Context) (string, error) {
	executable, err := n.inspectExecutable()
	if err != nil {
		return "", err
	}
	env, err := n.environment(ctx, redactUnknown)
	if err != nil {
		return "", err
	}
	return n.chooseOption(ctx, env, executable, redactUnknown)
}

// chooseOption returns the configured option, or asks the executable; two instances that want to know at once make it
// start once.
func (n *Server) chooseOption(ctx context.Context, env []string, executable executableKey, redact func(string) string) (string, error) {
	if slices.Contains(preferred, n.cfg.Command) {
		return n.cfg.Command, nil
	}
	if n.cfg.Command != commandAuto {
		return "", fmt.Errorf("campaign.command is %q, allowed are %s, %s", n.cfg.Command, commandAuto, strings.Join(preferred, ", "))
	}
	o := &n.offered
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.option != "" && o.executable == executable {
		return o.option, nil
	}
	option, err := n.askOption(ctx, env, redact)
	if err != nil {
		// Nothing is remembered: a library that was missing, or a wrapper script whose nlserver was updated, may give
		// another answer next time, and neither changes the file that was looked at.
		return "", err
	}
	o.executable, o.option = executable, option
	n.cfg.Logger.Debug("nlserver offers an option for the credential", "option", "-"+option)
	return option, nil
}

// forgetOption has the next run ask again. It is called when nlserver refused one: behind a wrapper script that stayed as it is,
// another build may know other options.
func (n *Server) forgetOption() {
	if n.offered.mu.TryLock() { // else somebody is asking right now
		n.offered.option = ""
		n.offered.mu.Unlock()
	}
}

// askOption reads nlserver's own list of options. Its exit status has no public meaning here: only the list counts.
func (n *Server) askOption(ctx context.Context, env []string, redact func(string) string) (string, error) {
	const step = "ask nlserver for its options (config -?)"
	out := &capture{limit: captureLimit}
	end, err := (&child{
		path: n.cfg.Executable, args: []string{"config", "-?"}, dir: n.cfg.Home, env: env, stdout: out, stderr: out,
	}).run(ctx, n.cfg.Timeout)
	// Redaction must not change the list, so it is for the errors only.
	list := out.text(end.complete, func(text string) string { return text })
	text := redact(list)
	switch {
	case err != nil && !end.started:
		return "", fmt.Errorf("%s: %w", step, explainStart(err))
	case err != nil:
		return "", fmt.Errorf("%s: %w%s", step, err, saying(text))
	case strings.TrimSpace(list) == "":
		return "", fmt.Errorf("%s: %s printed nothing (%s); does it start for this user and with this env_script?",
			step, n.cfg.Executable, cmp.Or(end.failure, "exit status 0"))
	}
	for _, option := range preferred {
		if offers(list, option) {
			return option, nil
		}
	}
	return "", fmt.Errorf("%s: %s offers none of -%s; update Campaign to 7.4.1 build 9383 or later, "+
		"or set campaign.command%s", step, n.cfg.Executable, strings.Join(preferred, ", -"), saying(text))
}

// offers reports whether text names option as a whole word: an option with a longer name is another option.
func offers(text, option string) bool {
	return regexp.MustCompile(`(^|[^\w-])-` + regexp.QuoteMeta(option) + `([^\w-]|$)`).MatchString(text)
}
