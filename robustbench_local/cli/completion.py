"""`robustbench-local completion bash`: what makes the Tab key finish commands, options, keys and names."""

from __future__ import annotations

import argparse

from robustbench_local.cli.output import OK
from robustbench_local.cli.parsing import Commands

SCRIPTS = {
    # bash replaces only what comes after the last = or : of a word, and within quotes all of it
    "bash": r"""
_robustbench_local() {
    local line=${COMP_LINE:0:COMP_POINT} word before each
    word=${line##*[[:space:]]}
    before=${word%"${word##*[=:]}"}
    [[ $word == [\'\"]* ]] && before=${word:0:1}
    COMPREPLY=()
    while IFS= read -r each; do
        COMPREPLY+=("${each#"$before"}")
        [[ $each == *= ]] && compopt -o nospace 2>/dev/null
    done < <(robustbench-local completion bash --words="$line" 2>/dev/null)
}
complete -o default -F _robustbench_local robustbench-local
""",
    "zsh": """
_robustbench_local() {
    local -a found open
    found=("${(@f)$(robustbench-local completion zsh --words="$LBUFFER" 2>/dev/null)}")
    found=(${found:#})
    if (( ! $#found )); then
        _files
        return
    fi
    open=(${(M)found:#*=})
    found=(${found:#*=})
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#found )) && compadd -Q -- $found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _robustbench_local robustbench-local
""",
    "fish": """
function __robustbench_local
    set -l found (robustbench-local completion fish --words=(commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c robustbench-local -f -a '(__robustbench_local)'
""",
}
_WHERE = {
    "bash": 'eval "$(robustbench-local completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(robustbench-local completion zsh)" in ~/.zshrc',
    "fish": "robustbench-local completion fish > ~/.config/fish/completions/robustbench-local.fish",
}


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "completion",
        help="what makes the Tab key finish words: completion bash, zsh or fish",
        description="Prints what a shell reads so that the Tab key finishes commands, options, keys of grids and names"
        " of attacks, defenses, grids and models.",
        epilog="once:\n\n" + "\n".join(f"{shell}  {how}" for shell, how in _WHERE.items()),
    )
    parser.add_argument("shell", choices=SCRIPTS)
    parser.add_argument("--words", metavar="LINE", help=argparse.SUPPRESS)  # the scripts ask what may end this line
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    if options.words is None:
        print(SCRIPTS[options.shell].strip())
        return OK
    from robustbench_local.cli.candidates import candidates

    for word in candidates(options.words, options.parser):
        print(word)
    return OK
