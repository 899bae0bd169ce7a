<#
.SYNOPSIS
Windows: builds the example server and runs it until Ctrl-C; what the build needs is installed if it is missing.

.DESCRIPTION
With -Once it talks to the server itself, over real connections on a free port, prints the conversation, stops the server as
Ctrl-C does, and says by the status whether everything was right. -Server names one that is built already.

.EXAMPLE
ci\demo.ps1
ci\demo.ps1 -Once
#>
param(
    [switch]$Once,
    [string]$Server = ''
)
. "$PSScriptRoot\lib.ps1"
Set-Location "$PSScriptRoot\.."

if (-not $Server) {
    Request-Tool 'cmake' 'Kitware.CMake'
    $build = 'build/demo'
    $arguments = @('-S', '.', '-B', $build, '-DCMAKE_BUILD_TYPE=Release', '-DROUSE_BUILD_TESTS=OFF', '-DROUSE_BUILD_BENCH=OFF')
    if (-not (Find-VisualStudio)) {
        Request-Tool 'gcc' 'BrechtSanders.WinLibs.POSIX.UCRT'
        Request-Tool 'ninja' 'Ninja-build.Ninja'
        $arguments += @('-G', 'Ninja', '-DCMAKE_C_COMPILER=gcc')
    }
    Invoke-Step 'cmake' $arguments
    Invoke-Step 'cmake' @('--build', $build, '--config', 'Release', '--parallel', '2', '--target', 'poll_server')
    $Server = (Get-ChildItem "$build/bin" -Recurse -Filter poll_server.exe | Select-Object -First 1).FullName
}
if (-not $Once) {
    & $Server
    exit $LASTEXITCODE
}

# ---- the conversation ------------------------------------------------------------------------------------------------

$patience = 10000 # milliseconds for anything to happen

Add-Type -Namespace Rouse -Name Console -MemberDefinition @'
[DllImport("kernel32.dll", SetLastError = true)] public static extern bool GenerateConsoleCtrlEvent(uint code, uint group);
[DllImport("kernel32.dll", SetLastError = true)] public static extern bool SetConsoleCtrlHandler(IntPtr handler, bool ignore);
'@

$start = New-Object System.Diagnostics.ProcessStartInfo
$start.FileName = $Server
$start.Arguments = '--listen 127.0.0.1:0'
$start.UseShellExecute = $false # it shares this console, and so is told of Ctrl-C
$start.RedirectStandardOutput = $true
$process = [System.Diagnostics.Process]::Start($start)

function Stop-Failed([string]$Text) {
    Write-Host "FAILED: $Text"
    if (-not $process.HasExited) { $process.Kill() }
    exit 1
}

$line = $process.StandardOutput.ReadLineAsync()
if (-not $line.Wait($patience)) { Stop-Failed 'the server printed nothing' }
if ("$($line.Result)" -notmatch '([0-9.]+):([0-9]+)') { Stop-Failed "no address in the first line: $($line.Result)" }
$address = $Matches[1]
$port = [int]$Matches[2]
Write-Host "server:   $($line.Result)"

function Connect-Client([int]$Number) {
    $client = New-Object System.Net.Sockets.TcpClient
    $client.Connect($address, $port)
    $stream = $client.GetStream()
    $stream.ReadTimeout = $patience
    $stream.WriteTimeout = $patience
    $writer = New-Object System.IO.StreamWriter($stream)
    $writer.NewLine = "`n"
    $writer.AutoFlush = $true
    Write-Host "client ${Number}: connected to $address port $port"
    return @{ Number = $Number; Client = $client; Reader = (New-Object System.IO.StreamReader($stream)); Writer = $writer }
}

function Send-Text($Client, [string]$Text) {
    Write-Host "client $($Client.Number): > $Text"
    $Client.Writer.WriteLine($Text)
}

function Assert-Reply($Client, [string]$Text) {
    $reply = $Client.Reader.ReadLine()
    Write-Host "client $($Client.Number): < $reply"
    if ($reply -cne "[Server]: Got $Text") { Stop-Failed "expected '[Server]: Got $Text'" }
}

try {
    $one = Connect-Client 1
    Send-Text $one 'hello'
    Assert-Reply $one 'hello'
    $two = Connect-Client 2
    Send-Text $two 'a second client at the same time'
    Assert-Reply $two 'a second client at the same time'
    Send-Text $one 'one, while two is connected'
    Send-Text $two 'two, before one has its answer'
    Assert-Reply $two 'two, before one has its answer'
    Assert-Reply $one 'one, while two is connected'
    $one.Client.Close()
    Write-Host 'client 1: disconnected'
    Send-Text $two 'still here after the first has left'
    Assert-Reply $two 'still here after the first has left'

    # The second client is still connected and owes nothing: the server hangs up and ends. This script itself lives on.
    [void][Rouse.Console]::SetConsoleCtrlHandler([IntPtr]::Zero, $true)
    if (-not [Rouse.Console]::GenerateConsoleCtrlEvent(0, 0)) { Stop-Failed 'Ctrl-C could not be sent' }
    if ($null -ne $two.Reader.ReadLine()) { Stop-Failed 'client 2 was not hung up on' }
    Write-Host 'client 2: the server has hung up'
}
catch [System.IO.IOException], [System.Net.Sockets.SocketException] {
    Stop-Failed $_.Exception.Message
}
if (-not $process.WaitForExit($patience)) { Stop-Failed 'the server still runs after Ctrl-C' }
Write-Host "server:   ended by Ctrl-C with status $($process.ExitCode)"
if ($process.ExitCode -ne 0) { Stop-Failed "the server's exit status is $($process.ExitCode)" }
exit 0
