package main

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// failure is an error as nlserver words it: a sentence and a number.
type failure struct {
	iRc  int
	text string
}

func (f *failure) Error() string { return fmt.Sprintf("%s (iRc=%d)", f.text, f.iRc) }

// The numbers are invented: real ones, such as -52 and -2006, are public only
// for other errors.
const (
	iRcUsage         = -5300
	iRcUnknownOption = -5301
	iRcCredential    = -5302
	iRcInstance      = -5303
	iRcModule        = -5304
	iRcFile          = -5305
	iRcInjected      = -5399
)

// What a run does. These are also the names that the fault switch "on" takes.
const (
	kindSet     = "set"
	kindReload  = "reload"
	kindRestart = "restart"
	kindHelp    = "help"
)

// setOptions are the options that write a credential, newest first.
var setOptions = []string{"setimsoauth", "setimsauth", "setimsjwtauth"}

// One process serves all instances, or each instance has its own.
var (
	multiInstance = []string{"web", "syslogd", "trackinglogd", "watchdog"}
	monoInstance  = []string{"mta", "wfserver", "inMail", "sms", "stat", "pipelined"}
)

// invocation is a command line, taken apart. Whether this build knows the
// option is not decided here, so that the run log can name it in any case.
type invocation struct {
	kind       string // one of the kinds above; empty when the line makes no sense
	subcommand string // as typed
	instance   string
	option     string // the set option, without dash and value
	fields     []string
	modules    []string // of restart, as typed
	wrong      *failure // why the line is refused, or nil
}

// Positions of the fields of a credential.
const (
	fieldOrg = iota
	fieldClient
	fieldTechnicalAccount
	fieldSecret
	fieldPrivateKey
)

func (c *invocation) field(i int) string {
	if i < len(c.fields) {
		return c.fields[i]
	}
	return ""
}

func (c *invocation) refuse(iRc int, format string, args ...any) {
	if c.wrong == nil {
		c.wrong = &failure{iRc, fmt.Sprintf(format, args...)}
	}
}

func parseArguments(args []string) invocation {
	var c invocation
	if len(args) == 0 {
		c.refuse(iRcUsage, "No command given. Usage: nlserver <command> [options].")
		return c
	}
	c.subcommand = args[0]
	switch c.subcommand {
	case "config":
		c.parseConfig(args[1:])
	case "restart":
		c.kind = kindRestart
		c.parseRestart(args[1:])
	default:
		c.refuse(iRcUsage, "Unknown command '%s'.", c.subcommand)
	}
	return c
}

func (c *invocation) parseConfig(args []string) {
	instances := 0
	become := func(kind string) {
		if c.kind != "" {
			c.refuse(iRcUsage, "Only one operation may be given at a time.")
		}
		c.kind = kind
	}
	for _, arg := range args {
		dashed, isOption := strings.CutPrefix(arg, "-")
		name, value, hasValue := strings.Cut(dashed, ":")
		switch {
		case !isOption:
			c.refuse(iRcUsage, "Unexpected argument on the command line.")
		case arg == "-?":
			become(kindHelp)
		case arg == "-reload":
			become(kindReload)
		case name == "instance" && hasValue:
			c.instance = value
			instances++
		case slices.Contains(setOptions, name):
			become(kindSet)
			c.option = name
			c.splitCredential(value)
		default:
			// Only the name: what follows the colon may be a secret.
			c.option = name
			c.refuse(iRcUnknownOption, "Unknown option '-%s'.", name)
		}
	}
	if instances > 1 {
		c.refuse(iRcUsage, "Option '-instance' given more than once.")
	}
	if instances == 1 && !isInstanceName(c.instance) {
		c.refuse(iRcInstance, "Invalid instance name '%s'.", c.instance)
	}
	if c.kind == kindSet && instances == 0 {
		c.refuse(iRcUsage, "Option '-%s' needs '-instance:<instance>'.", c.option)
	}
	if c.kind == "" {
		c.refuse(iRcUsage, "Nothing to do. 'nlserver config -?' lists the options.")
	}
}

// splitCredential takes ORG/CLIENT/TECHACCT/SECRET apart. No escaping is
// documented, so a slash too many makes a field too many. Only the private key
// of the JWT form, base64 and last, may hold slashes of its own.
func (c *invocation) splitCredential(value string) {
	if c.option == "setimsjwtauth" {
		c.fields = strings.SplitN(value, "/", fieldPrivateKey+1)
		if len(c.fields) <= fieldTechnicalAccount {
			c.refuse(iRcCredential, "Option '-%s' takes 3 to 5 values separated by '/', %d given.", c.option, len(c.fields))
		}
		// Go's decoder would skip line ends; on a command line they are an accident.
		key := c.field(fieldPrivateKey)
		if _, err := base64.StdEncoding.DecodeString(key); err != nil || strings.ContainsAny(key, "\r\n") {
			c.refuse(iRcCredential, "Option '-%s': the private key is not base64.", c.option)
		}
	} else {
		c.fields = strings.Split(value, "/")
		if len(c.fields) != fieldSecret+1 {
			c.refuse(iRcCredential, "Option '-%s' takes 4 values separated by '/', %d given.", c.option, len(c.fields))
		}
	}
	if i := slices.Index(c.fields, ""); i >= 0 {
		c.refuse(iRcCredential, "Option '-%s': value %d is empty.", c.option, i+1)
	}
}

func (c *invocation) parseRestart(args []string) {
	for _, arg := range args {
		if arg == "-noconsole" || arg == "-tomcat" {
			continue
		}
		if strings.HasPrefix(arg, "-") {
			c.refuse(iRcUnknownOption, "Unknown option '%s'.", arg)
			continue
		}
		c.modules = append(c.modules, arg)
	}
	if len(c.modules) != 1 {
		c.refuse(iRcUsage, "One module is expected, %d given. Usage: nlserver restart <module>[@<instance>].", len(c.modules))
		return
	}
	module, instance, hasInstance := strings.Cut(c.modules[0], "@")
	c.instance = instance
	switch {
	case slices.Contains(multiInstance, module):
		if hasInstance {
			c.refuse(iRcModule, "Module '%s' serves all instances and takes no '@<instance>'.", module)
		}
	case slices.Contains(monoInstance, module):
		if !hasInstance {
			c.refuse(iRcModule, "Module '%s' needs its instance: '%s@<instance>'.", module, module)
		} else if !isInstanceName(instance) {
			c.refuse(iRcInstance, "Invalid instance name '%s'.", instance)
		}
	default:
		c.refuse(iRcModule, "Unknown module '%s'.", module)
	}
}

// isInstanceName keeps a name from reaching other files than its own;
// config-default.xml is not an instance.
func isInstanceName(name string) bool {
	return name != "" && name != "default" && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\x00")
}
