# Sourced by the PowerShell scripts of this folder: finding a tool on Windows, or installing it by winget.
$ErrorActionPreference = 'Stop'

# A mistake of the caller, or something only the caller can mend.
function Stop-With([string]$Text) {
    Write-Host $Text
    exit 2
}

# Runs a program, and ends the script with its status if that is not 0.
function Invoke-Step([string]$Program, [string[]]$Arguments) {
    Write-Host "$Program $Arguments"
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}

# What winget has installed is found by programs that start afterwards, and so by this one only with a new look.
function Update-Path {
    $env:Path = @([Environment]::GetEnvironmentVariable('Path', 'Machine'),
        [Environment]::GetEnvironmentVariable('Path', 'User'), $env:Path) -join ';'
}

# Request-Tool NAME PACKAGE: the program, or else the package of winget that has it.
function Request-Tool([string]$Name, [string]$Package) {
    if (Get-Command $Name -ErrorAction SilentlyContinue) { return }
    if (-not (Get-Command winget -ErrorAction SilentlyContinue)) {
        Stop-With "please install $Name (winget, which could install $Package, is not there)"
    }
    & winget install --exact --id $Package --accept-source-agreements --accept-package-agreements --disable-interactivity
    Update-Path
    if (-not (Get-Command $Name -ErrorAction SilentlyContinue)) { Stop-With "$Name is still missing after installing $Package" }
}

# Where Visual Studio is, or nothing.
function Find-VisualStudio {
    $finder = "${env:ProgramFiles(x86)}\Microsoft Visual Studio\Installer\vswhere.exe"
    if (-not (Test-Path $finder)) { return $null }
    & $finder -latest -products '*' -requires Microsoft.VisualStudio.Component.VC.Tools.x86.x64 -property installationPath
}
