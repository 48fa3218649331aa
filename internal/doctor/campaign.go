package doctor

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// oauthBuild is the first one that knows setimsoauth: 7.4.1.
const oauthBuild = 9383

// nlserver looks at the program, its build and its options.
func (x *examination) nlserver(ctx context.Context) []Finding {
	const remedy = "set campaign.home and campaign.nlserver to where Campaign is installed"
	program, command := x.executable(), x.Config.Config.Campaign.Command
	info, err := os.Stat(program)
	switch {
	case err != nil:
		f := notRead(program, err)
		if f.Level == Error {
			f.Remedy = remedy
		}
		return []Finding{f}
	case !info.Mode().IsRegular() || modeOf(info)&0o111 == 0:
		return []Finding{failed(remedy, "%s is no program (mode %04o)", program, modeOf(info))}
	}
	if os.Geteuid() != x.campaignUser() { // what it writes would not be Campaign's
		return []Finding{unseen("sudo -E -u "+sudoName(x.campaignUser())+" campaign-credsync doctor", "nlserver is run by its own user only")}
	}
	ctx, cancel := soon(ctx)
	defer cancel()
	inspected, err := x.Inspect(ctx)
	switch {
	case ctx.Err() != nil:
		return []Finding{failed("run it by hand: "+program+" config '-?'", "nlserver config -? did not end in time")}
	case err != nil:
		return []Finding{failed("run it by hand: "+program+" config '-?'", "%v", err)}
	}
	var all []Finding
	const update = "update Campaign to 7.4.1 build 9383 or later, or set campaign.command to the option that this build takes"
	switch {
	case command == "auto" && len(inspected.Options) == 0:
		all = append(all, failed(update, "nlserver config -? lists no option that takes a credential, so none is applied"))
	case command == "auto" && inspected.Options[0] != "setimsoauth":
		all = append(all, warn(update, "nlserver config -? does not list setimsoauth; %s will be used", inspected.Options[0]))
	case command != "auto" && !slices.Contains(inspected.Options, command):
		all = append(all, warn("see whether campaign.command is right; the list may be incomplete", "nlserver config -? does not list %s", command))
	}
	if inspected.Build > 0 && inspected.Build < oauthBuild {
		all = append(all, warn(update, "build %d is older than %d, the first one with setimsoauth", inspected.Build, oauthBuild))
	}
	if len(all) == 0 {
		build := "its build is not said"
		if inspected.Build > 0 {
			build = fmt.Sprintf("build %d", inspected.Build)
		}
		all = append(all, well("%s, %s", program, build))
	}
	return all
}
