# Completion of {name} for fish. Load it once:  {name} -sc install=fish | source
function __{function}_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    command -q -- $program; or set program {program}
    set -lx COMP_LINE (commandline -pc)
    set -lx COMP_POINT (string length -- $COMP_LINE)
    # fish itself knows after which letters no blank follows.
    $program -sc query=candidates 2>/dev/null | string replace -r ' \t' \t
end
complete -c {name} -f -a '(__{function}_complete)'
