# Environment of the Campaign server, to be sourced: . <home>/env.sh
# Written by the nlserver stand-in. The real one sets more; what is kept here is
# what nlserver is documented to need.

NL6_HOME=@HOME@

USERPATH=${NL6_HOME%/*}
PATH=$NL6_HOME/bin:$PATH
LD_LIBRARY_PATH=$NL6_HOME/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export USERPATH PATH LD_LIBRARY_PATH

# Local additions, such as JAVA_HOME or TMPDIR.
if [ -f "$NL6_HOME/customer.sh" ]; then
	. "$NL6_HOME/customer.sh"
fi
